//! `Lock`: `threading.Lock`'s protocol, `with` and `async with` over the core's acquire and release.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlock::{Ended, Kind, Op};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::aio::{self, Call, Outcome, Port};
use crate::bridge;
use crate::client::Origin;
use crate::error::raised;
use crate::lease::{Entry, Lease, Leaving};
use crate::options::{self, Loss};

/// A key and how to hold it. May be shared by threads and tasks; locks of one key exclude each other.
#[pyclass(frozen, weakref, module = "dlock", name = "Lock")]
pub(crate) struct Lock {
    lock: dlock::Lock,
    loss: Loss,
    origin: Origin,
    /// What is held through this object: one at the most, beside those that were lost and not left yet.
    held: Mutex<Vec<Entry>>,
}

/// What `pickle` makes a lock of.
type Reduced<'py> = (Py<PyAny>, (Origin, String, Bound<'py, PyDict>));

thread_local! {
    static ME: u8 = const { 0 };
}

/// A number for this thread that no other living thread and no living object has.
fn this_thread() -> usize {
    ME.with(|me| std::ptr::from_ref(me).addr())
}

fn ended(ended: Ended) -> bool {
    ended == Ended::Released
}

impl Lock {
    pub(crate) fn new(
        py: Python<'_>,
        lock: dlock::Lock,
        options: Option<&Bound<'_, PyDict>>,
        origin: Origin,
    ) -> PyResult<Self> {
        let (lock, loss) = options::apply(lock, options)?;
        lock.check().map_err(|error| raised(py, &error))?;
        Ok(Self { lock, loss, origin, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry that its owner leaves, else the one that is held.
    fn take(&self, owner: usize) -> Option<Entry> {
        let mut held = self.held();
        let own = held.iter().rposition(|entry| entry.owner == owner);
        let at = own.or_else(|| held.len().checked_sub(1))?;
        Some(held.remove(at))
    }

    fn enter(&self, py: Python<'_>, op: Op<dlock::Lease>) -> PyResult<Py<Lease>> {
        let mut op = op;
        let lease = match op.settled() {
            Some(result) => result.map_err(|error| raised(py, &error))?,
            None => {
                self.refuse_deadlock(py)?;
                bridge::wait(py, op)?
            }
        };
        let lease = Lease::new(py, lease, self.loss)?;
        self.held().push(Entry::new(lease.clone_ref(py), this_thread()));
        Ok(lease)
    }

    /// A thread that waits for its own event loop waits for ever.
    fn refuse_deadlock(&self, py: Python<'_>) -> PyResult<()> {
        let Some(running) = aio::running_loop(py)? else {
            return Ok(());
        };
        if self.lock.holder_tag() != Some(running.as_ptr().addr() as u64) {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "{} is held by a task of the event loop that this thread runs: waiting for it here would never end; use \
             `async with` (or `await lock.aacquire()`)",
            dlock::show(self.lock.key())
        )))
    }

    fn begin(&self, wait: Option<Option<Duration>>) -> Op<dlock::Lease> {
        match wait {
            None => self.lock.acquire(),
            Some(wait) => self.lock.acquire_for(wait),
        }
    }

    fn leave(&self, py: Python<'_>, owner: usize) -> PyResult<Entry> {
        self.take(owner).ok_or_else(|| {
            let error =
                dlock::Error::new(Kind::NotHeld, "release of an unlocked lock: it is not held through this object");
            raised(py, &error.with_key(self.lock.key()).with_service(self.lock.client().backend()))
        })
    }

    /// The lock's memory of a lease obtained by a task, and what the task asked for.
    fn hold(slf: &Bound<'_, Self>, lease: dlock::Lease, scoped: bool) -> PyResult<Py<PyAny>> {
        let lease = Lease::new(slf.py(), lease, slf.get().loss)?;
        Self::_hold(slf, lease, scoped)
    }

    fn acquiring(slf: &Bound<'_, Self>, wait: Option<Option<Duration>>, scoped: bool) -> Call {
        let this = slf.clone().unbind();
        Call::new(move |py| {
            let slf = this.bind(py);
            let lock = slf.get();
            let mut op = lock.begin(wait);
            match op.settled() {
                Some(Ok(lease)) => Ok(Outcome::Done(Self::hold(slf, lease, scoped)?)),
                Some(Err(error)) if !scoped && error.kind() == Kind::Timeout => {
                    Ok(Outcome::Done(false.into_pyobject(py)?.to_owned().into_any().unbind()))
                }
                Some(Err(error)) => Err(raised(py, &error)),
                None => {
                    let loss = lock.loss;
                    let pending = aio::pending(py, op, move |py, lease| Ok(Lease::new(py, lease, loss)?.into_any()))?;
                    Ok(Outcome::Later(if scoped {
                        aio::half(py, "enter", (pending, slf, true))?
                    } else {
                        aio::half(py, "attempt", (pending, slf))?
                    }))
                }
            }
        })
    }
}

#[pymethods]
impl Lock {
    #[getter]
    fn key(&self) -> &str {
        self.lock.key()
    }

    #[getter]
    fn backend_name(&self) -> &str {
        self.lock.backend_name()
    }

    #[getter]
    fn lease(&self, py: Python<'_>) -> Option<Py<Lease>> {
        self.held().last().map(|entry| entry.lease.clone_ref(py))
    }

    #[pyo3(signature = (blocking=true, timeout=None))]
    fn acquire(&self, py: Python<'_>, blocking: bool, timeout: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        let wait = options::timeout(py, blocking, timeout.as_ref())?;
        let mut op = self.begin(wait);
        if let Some(error) = op.settled_error() {
            return if error.kind() == Kind::Timeout { Ok(false) } else { Err(raised(py, &error)) };
        }
        match self.enter(py, op) {
            Ok(_) => Ok(true),
            Err(error) if crate::error::is(py, &error, Kind::Timeout) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let entry = self.leave(py, this_thread())?;
        let released = bridge::wait(py, entry.end())?;
        entry.judge(py, Some(ended(released)), None).map(drop)
    }

    fn locked(&self) -> bool {
        self.held().iter().any(|entry| entry.lease.get().stands())
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<Lease>> {
        self.enter(py, self.lock.acquire())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        failure: Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (kind, traceback);
        // Released inside the block: nothing is left to do.
        let Some(entry) = self.take(this_thread()) else {
            return Ok(false);
        };
        let mut op = entry.end();
        let result = match op.settled() {
            Some(result) => result.map_err(|error| raised(py, &error)),
            None => bridge::wait(py, op),
        };
        let failure = (!failure.is_none()).then_some(failure);
        match result {
            Ok(released) => entry.judge(py, Some(ended(released)), failure),
            // Not confirmed in time (an event tells), or the lease of a parent of this process.
            Err(error)
                if crate::error::is(py, &error, Kind::Backend) || crate::error::is(py, &error, Kind::NotHeld) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    #[pyo3(signature = (blocking=true, timeout=None))]
    fn aacquire(slf: &Bound<'_, Self>, blocking: bool, timeout: Option<Bound<'_, PyAny>>) -> PyResult<Call> {
        let wait = options::timeout(slf.py(), blocking, timeout.as_ref())?;
        Ok(Self::acquiring(slf, wait, false))
    }

    fn arelease(slf: Py<Self>) -> Call {
        Call::new(move |py| {
            let entry = slf.get().leave(py, aio::current_task(py)?.as_ptr().addr())?;
            let mut op = entry.end();
            match op.settled() {
                Some(Ok(released)) => {
                    entry.judge(py, Some(ended(released)), None)?;
                    Ok(Outcome::Done(py.None()))
                }
                Some(Err(error)) => Err(raised(py, &error)),
                None => {
                    let pending = aio::pending(py, op, move |py, released| {
                        entry.judge(py, Some(ended(released)), None)?;
                        Ok(py.None())
                    })?;
                    Ok(Outcome::Later(aio::half(py, "settle", (pending,))?))
                }
            }
        })
    }

    fn __aenter__(slf: &Bound<'_, Self>) -> Call {
        Self::acquiring(slf, None, true)
    }

    fn __aexit__(slf: Py<Self>, kind: Py<PyAny>, failure: Py<PyAny>, traceback: Py<PyAny>) -> Call {
        let _ = (kind, traceback);
        Call::new(move |py| {
            let task = aio::current_task(py)?;
            let Some(entry) = slf.get().take(task.as_ptr().addr()) else {
                return Ok(Outcome::Done(false.into_pyobject(py)?.to_owned().into_any().unbind()));
            };
            let failure = failure.into_bound(py);
            let failure = (!failure.is_none()).then_some(failure);
            let mut op = entry.end();
            match op.settled() {
                Some(result) => {
                    let released = match result {
                        Ok(released) => Some(ended(released)),
                        Err(error) if matches!(error.kind(), Kind::Backend | Kind::NotHeld) => None,
                        Err(error) => return Err(raised(py, &error)),
                    };
                    let quiet = entry.judge(py, released, failure)?;
                    Ok(Outcome::Done(quiet.into_pyobject(py)?.to_owned().into_any().unbind()))
                }
                None => {
                    let pending = aio::pending(py, op, |py, released| {
                        Ok(ended(released).into_pyobject(py)?.to_owned().into_any().unbind())
                    })?;
                    Ok(Outcome::Later(aio::half(py, "leave", (pending, Py::new(py, Leaving(entry))?, failure))?))
                }
            }
        })
    }

    /// Remembers a lease that a task has obtained.
    fn _hold(slf: &Bound<'_, Self>, lease: Py<Lease>, scoped: bool) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let task = aio::current_task(py)?;
        let entry = match aio::running_loop(py)? {
            Some(running) => {
                lease.get().core().set_tag(running.as_ptr().addr() as u64);
                if scoped {
                    Entry::guarded(lease.clone_ref(py), task, Port::of(&running)?)?
                } else {
                    Entry::new(lease.clone_ref(py), task.as_ptr().addr())
                }
            }
            None => Entry::new(lease.clone_ref(py), task.as_ptr().addr()),
        };
        slf.get().held().push(entry);
        Ok(if scoped { lease.into_any() } else { true.into_pyobject(py)?.to_owned().into_any().unbind() })
    }

    /// For `threading` and `Condition`: unlocked, as in a fresh child of fork.
    fn _at_fork_reinit(&self) {
        // Dropped outside the mutex: what is collected may warn, and a warning may run anything.
        let left = std::mem::take(&mut *self.held());
        drop(left);
    }

    fn _is_owned(&self) -> bool {
        self.locked()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let lock = slf.get();
        let state = if lock.locked() { "locked" } else { "unlocked" };
        let backend = lock.lock.client().backend();
        format!("<{state} dlock.Lock key={} backend={backend} at {:p}>", dlock::show(lock.lock.key()), slf.as_ptr())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        let restore = py.import("dlock._dlock")?.getattr("_restore")?.unbind();
        let options = options::describe(py, &self.lock, self.loss)?;
        Ok((restore, (self.origin.clone(), self.lock.key().to_owned(), options)))
    }
}
