//! Acquires that return the lease itself, and the wait of a thread for a lease.

use std::time::Duration;

use dlock::{Kind, Op};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::aio::{self, Coroutine, Outcome, Pending};
use crate::bridge;
use crate::error::raised;
use crate::lease::Lease;
use crate::options::{self, OnLoss};
use crate::port::LoopPort;
use crate::who;

/// An acquire whose lease belongs to its caller. No `Lock` keeps the lease.
pub(crate) struct Acquire {
    lock: dlock::Lock,
    on_loss: OnLoss,
}

impl Acquire {
    pub(crate) fn new(py: Python<'_>, lock: dlock::Lock, options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let (lock, on_loss) = options::apply(lock, options)?;
        lock.check().map_err(|error| raised(py, &error))?;
        Ok(Self { lock, on_loss })
    }

    /// Acquires the lock. The options limit the wait.
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<Py<Lease>> {
        let once = self.lock.options().wait == Some(Duration::ZERO);
        self.obtain(py, self.lock.acquire(), once)
    }

    /// Tries once to acquire the lock. Returns None if the lock is busy.
    pub(crate) fn try_now(&self, py: Python<'_>) -> PyResult<Option<Py<Lease>>> {
        match self.obtain(py, self.lock.acquire_for(Some(Duration::ZERO)), true) {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if crate::error::is(py, &error, Kind::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn obtain(&self, py: Python<'_>, op: Op<dlock::Lease>, once: bool) -> PyResult<Py<Lease>> {
        let lease = blocking(py, &self.lock, op, once)?;
        let tag = who::plain().map_or_else(|| Ok(who::caller(py)?.tag), PyResult::Ok)?;
        lease.set_user_data(tag);
        Lease::new(py, lease, self.on_loss)
    }

    /// Returns the coroutine of an acquire. The options limit the wait.
    pub(crate) fn later(self) -> Coroutine {
        self.coroutine(dlock::Lock::acquire, "settle", Err)
    }

    /// Returns the coroutine of an acquire that tries once. The coroutine returns None if the lock is busy.
    pub(crate) fn try_later(self) -> Coroutine {
        let busy = |error: dlock::Error| if error.kind() == Kind::Timeout { Ok(()) } else { Err(error) };
        self.coroutine(|lock| lock.acquire_for(Some(Duration::ZERO)), "settle_try", busy)
    }

    /// Returns the coroutine of an acquire. `waiting` is the coroutine function of the Python half that waits for the
    /// acquire. `busy` decides which errors become None.
    fn coroutine(
        self,
        begin: impl FnOnce(&dlock::Lock) -> Op<dlock::Lease> + Send + Sync + 'static,
        waiting: &'static str,
        busy: impl FnOnce(dlock::Error) -> dlock::Result<()> + Send + Sync + 'static,
    ) -> Coroutine {
        Coroutine::new(move |py| {
            let Self { lock, on_loss } = self;
            // The port is made before the acquire begins: without a loop there is no task that could have the lease.
            let port = aio::port(py)?;
            let tag = port.number();
            let mut op = begin(&lock);
            match op.settled() {
                Some(Ok(lease)) => {
                    lease.set_user_data(tag);
                    Ok(Outcome::Done(Lease::new(py, lease, on_loss)?.into_any()))
                }
                Some(Err(error)) => busy(error).map(|()| Outcome::Done(py.None())).map_err(|error| raised(py, &error)),
                None => {
                    let pending = awaited(py, port, op, on_loss)?;
                    Ok(Outcome::Later(aio::python_coroutine(py, waiting, (pending,))?))
                }
            }
        })
    }
}

/// Begins an acquire that a task of this loop awaits.
pub(crate) fn awaited(py: Python<'_>, port: LoopPort, op: Op<dlock::Lease>, on_loss: OnLoss) -> PyResult<Py<Pending>> {
    let tag = port.number();
    // The core sets the tag as soon as the lease is granted. So a thread that waits here sees the tag, although its
    // loop is blocked and can't set it.
    let note = move |lease: &dlock::Lease| lease.set_user_data(tag);
    aio::noted(py, port, op, note, move |py, lease| Ok(Lease::new(py, lease, on_loss)?.into_any()))
}

/// Waits for an acquire. Fails if only the event loop of this thread could end the wait. `once`: the acquire doesn't
/// wait for other holders.
#[inline]
pub(crate) fn blocking(
    py: Python<'_>,
    lock: &dlock::Lock,
    mut op: Op<dlock::Lease>,
    once: bool,
) -> PyResult<dlock::Lease> {
    match op.settled() {
        Some(result) => result.map_err(|error| raised(py, &error)),
        None => wait(py, lock, op, once),
    }
}

fn wait(py: Python<'_>, lock: &dlock::Lock, op: Op<dlock::Lease>, once: bool) -> PyResult<dlock::Lease> {
    let Some(running) = aio::running_loop(py)?.filter(|_| !once) else {
        return bridge::wait(py, op);
    };
    let own = [LoopPort::of(&running).map_or(who::thread(), |port| port.number()), who::thread()];
    bridge::wait_unless(py, op, |py| refuse_deadlock(py, lock, own))
}

/// Fails if the lock is held in the event loop of this thread. A thread that waits for its own event loop waits for
/// ever.
fn refuse_deadlock(py: Python<'_>, lock: &dlock::Lock, own: [u64; 2]) -> PyResult<()> {
    if !lock.holder_data().is_some_and(|tag| own.contains(&tag)) {
        return Ok(());
    }
    let error = dlock::Error::new(
        Kind::Deadlock,
        "it is held in the event loop that this thread runs, so waiting for it here would never end: use `async with`, \
         or `await` its `aacquire()`",
    );
    Err(raised(py, &error.with_key(lock.key()).with_backend(lock.client().backend())))
}
