//! `Lock`: the protocol of `threading.Lock`, and `with` and `async with`, over the core's acquire and release.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use dlock::{Kind, Op, ReleaseOutcome};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyGeneratorExit;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyWeakrefReference};

use crate::acquire::{awaited, blocking};
use crate::aio::{self, Coroutine, Outcome};
use crate::bridge;
use crate::error::raised;
use crate::held::{Entry, Held, Leaving, Way};
use crate::lease::Lease;
use crate::options::{self, OnLoss};
use crate::origin::Origin;
use crate::port::Place;
use crate::who::{self, Who};

/// A key with the options for its lock. Threads and tasks may share this object. Locks of one key exclude each other.
#[pyclass(frozen, weakref, module = "dlock", name = "Lock")]
pub(crate) struct Lock {
    lock: dlock::Lock,
    on_loss: OnLoss,
    origin: Origin,
    held: Mutex<Held>,
    /// The weak reference by which the event loops of the holders know this lock.
    weak: PyOnceLock<Py<PyWeakrefReference>>,
}

/// The function and the arguments from which `pickle` makes a lock.
type Reduced<'py> = (Py<PyAny>, (Origin, String, Bound<'py, PyDict>));

fn ended(ended: ReleaseOutcome) -> bool {
    ended == ReleaseOutcome::Released
}

impl Lock {
    pub(crate) fn new(
        py: Python<'_>,
        lock: dlock::Lock,
        options: Option<&Bound<'_, PyDict>>,
        origin: Origin,
    ) -> PyResult<Self> {
        let (lock, on_loss) = options::apply(lock, options)?;
        lock.check().map_err(|error| raised(py, &error))?;
        Ok(Self { lock, on_loss, origin, held: Mutex::default(), weak: PyOnceLock::new() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        dlock::runtime::lock(&self.held)
    }

    /// Adds an entry for a lease that an owner has obtained.
    fn hold(slf: &Bound<'_, Self>, lease: &Py<Lease>, who: Who<'_>, scoped: bool, guarded: bool) -> PyResult<()> {
        let py = slf.py();
        lease.get().core().set_user_data(who.tag);
        let place = match &who.task {
            Some((task, port)) => {
                let weak = slf.get().weak.get_or_try_init(py, || PyWeakrefReference::new(slf).map(Bound::unbind))?;
                Some(port.hold(task.clone().unbind(), weak.clone_ref(py)))
            }
            None => None,
        };
        let mut entry = Entry::new(lease.clone_ref(py), who.owner, scoped, place);
        if let Some((task, _)) = who.task.filter(|_| guarded) {
            entry.guard(&task)?;
        }
        let useless = {
            let mut held = slf.get().held();
            let useless = held.useless(who.owner);
            held.push(entry);
            useless
        };
        // The entries are dropped outside the mutex, because a collected object may run any code.
        drop(useless);
        Ok(())
    }

    fn enter(slf: &Bound<'_, Self>, op: Op<dlock::Lease>, once: bool, scoped: bool) -> PyResult<Py<Lease>> {
        let (py, lock) = (slf.py(), slf.get());
        let lease = blocking(py, &lock.lock, op, once)?;
        let lease = Lease::new(py, lease, lock.on_loss)?;
        if let Some(number) = who::plain() {
            lease.get().core().set_user_data(number);
            let mut held = lock.held();
            // If this owner is the only one, there is no other to distinguish it from.
            if held.is_empty() {
                held.push(Entry::new(lease.clone_ref(py), number as usize, scoped, None));
                return Ok(lease);
            }
        }
        Self::hold(slf, &lease, who::caller(py)?, scoped, false)?;
        Ok(lease)
    }

    /// Releases what a task holds whose loop is gone.
    pub(crate) fn orphaned(slf: &Bound<'_, Self>, place: &Place) {
        let (py, lock) = (slf.py(), slf.get());
        let entry = lock.held().orphaned(place);
        let Some(mut entry) = entry else { return };
        let left = entry.lease.get().stands();
        drop(entry.end().on_done(|_| ()));
        if left {
            Lease::warn(py, lock.lock.key(), ": the event loop of the task that holds it was closed");
        }
    }

    /// Returns true if a block ends because it is collected with its task. Its lock is released when the task's loop is
    /// gone.
    #[inline]
    fn is_collected(&self, failure: &Bound<'_, PyAny>, awaited: bool) -> PyResult<bool> {
        if failure.is_none() || !failure.is_instance_of::<PyGeneratorExit>() {
            return Ok(false);
        }
        let outside = awaited && aio::running_loop(failure.py())?.is_none();
        Ok(self.held().was_orphaned(outside))
    }

    /// Returns true if an acquire with this wait tries only once.
    fn once(&self, wait: Option<Option<Duration>>) -> bool {
        wait.unwrap_or(self.lock.options().wait) == Some(Duration::ZERO)
    }

    fn begin(&self, wait: Option<Option<Duration>>) -> Op<dlock::Lease> {
        match wait {
            None => self.lock.acquire(),
            Some(wait) => self.lock.acquire_for(wait),
        }
    }

    fn leave(&self, py: Python<'_>, owner: usize) -> PyResult<Entry> {
        let entry = self.held().leave(owner, Way::Release);
        let error = match entry {
            Some(entry) => match entry.over() {
                Some(error) => error,
                None => return Ok(entry),
            },
            None => dlock::Error::new(Kind::NotHeld, "release of an unlocked lock: it is not held through this object"),
        };
        Err(raised(py, &error.with_key(self.lock.key()).with_backend(self.lock.client().backend())))
    }

    fn acquiring(slf: &Bound<'_, Self>, wait: Option<Option<Duration>>, scoped: bool) -> Coroutine {
        let this = slf.clone().unbind();
        Coroutine::new(move |py| {
            let slf = this.bind(py);
            let lock = slf.get();
            let mut op = lock.begin(wait);
            match op.settled() {
                Some(Ok(lease)) => {
                    let lease = Lease::new(py, lease, lock.on_loss)?;
                    Ok(Outcome::Done(Self::_hold(slf, lease, scoped)?))
                }
                Some(Err(error)) if !scoped && error.kind() == Kind::Timeout => {
                    Ok(Outcome::Done(false.into_pyobject(py)?.to_owned().into_any().unbind()))
                }
                Some(Err(error)) => Err(raised(py, &error)),
                None => {
                    let pending = awaited(py, aio::port(py)?, op, lock.on_loss)?;
                    Ok(Outcome::Later(if scoped {
                        aio::python_coroutine(py, "enter", (pending, slf, true))?
                    } else {
                        aio::python_coroutine(py, "attempt", (pending, slf))?
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
    fn acquire(slf: &Bound<'_, Self>, blocking: bool, timeout: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        let (py, lock) = (slf.py(), slf.get());
        let wait = options::timeout(py, blocking, timeout.as_ref())?;
        let mut op = lock.begin(wait);
        if let Some(error) = op.settled_error() {
            return if error.kind() == Kind::Timeout { Ok(false) } else { Err(raised(py, &error)) };
        }
        match Self::enter(slf, op, lock.once(wait), false) {
            Ok(_) => Ok(true),
            Err(error) if crate::error::is(py, &error, Kind::Timeout) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let mut entry = self.leave(py, who::owner(py)?)?;
        let released = bridge::wait(py, entry.end())?;
        entry.judge(py, Some(ended(released)), None).map(drop)
    }

    fn locked(&self) -> bool {
        self.held().any()
    }

    fn __enter__(slf: &Bound<'_, Self>) -> PyResult<Py<Lease>> {
        let lock = slf.get();
        Self::enter(slf, lock.lock.acquire(), lock.once(None), true)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        failure: Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (kind, traceback);
        let owner = who::owner(py)?;
        if self.is_collected(&failure, false)? {
            return Ok(false);
        }
        let entry = self.held().leave(owner, Way::Block);
        // If the lease was released inside the block, nothing is left to do.
        let Some(mut entry) = entry else {
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
            // The release wasn't confirmed in time, which an event reports. Or the lease belongs to a parent of this
            // process.
            Err(error)
                if crate::error::is(py, &error, Kind::Backend) || crate::error::is(py, &error, Kind::NotHeld) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    #[pyo3(signature = (blocking=true, timeout=None))]
    fn aacquire(slf: &Bound<'_, Self>, blocking: bool, timeout: Option<Bound<'_, PyAny>>) -> PyResult<Coroutine> {
        let wait = options::timeout(slf.py(), blocking, timeout.as_ref())?;
        Ok(Self::acquiring(slf, wait, false))
    }

    fn arelease(slf: Py<Self>) -> Coroutine {
        Coroutine::new(move |py| {
            let mut entry = slf.get().leave(py, who::awaiting(py)?)?;
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
                    Ok(Outcome::Later(aio::python_coroutine(py, "settle", (pending,))?))
                }
            }
        })
    }

    fn __aenter__(slf: &Bound<'_, Self>) -> Coroutine {
        Self::acquiring(slf, None, true)
    }

    fn __aexit__(slf: Py<Self>, kind: Py<PyAny>, failure: Py<PyAny>, traceback: Py<PyAny>) -> Coroutine {
        let _ = (kind, traceback);
        Coroutine::new(move |py| {
            let failure = failure.into_bound(py);
            let entry = match slf.get().is_collected(&failure, true)? {
                true => None,
                false => {
                    let owner = who::awaiting(py)?;
                    slf.get().held().leave(owner, Way::Block)
                }
            };
            let Some(mut entry) = entry else {
                return Ok(Outcome::Done(false.into_pyobject(py)?.to_owned().into_any().unbind()));
            };
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
                    Ok(Outcome::Later(aio::python_coroutine(
                        py,
                        "leave",
                        (pending, Py::new(py, Leaving(entry))?, failure),
                    )?))
                }
            }
        })
    }

    /// Adds an entry for a lease that a task has obtained. Returns the lease for a block, and otherwise True.
    fn _hold(slf: &Bound<'_, Self>, lease: Py<Lease>, scoped: bool) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        Self::hold(slf, &lease, who::awaiter(py)?, scoped, scoped)?;
        Ok(if scoped { lease.into_any() } else { true.into_pyobject(py)?.to_owned().into_any().unbind() })
    }

    /// Resets this object to unlocked, as in a new child of fork. `threading` and `Condition` need this method.
    fn _at_fork_reinit(&self) {
        // The entries are dropped outside the mutex, because a collected object may warn, and a warning may run any
        // code.
        let left = std::mem::take(&mut *self.held());
        drop(left);
    }

    fn _is_owned(&self) -> bool {
        self.locked()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.held.try_lock().map_or(Ok(()), |held| held.traverse(&visit))
    }

    fn __clear__(&self) {
        self._at_fork_reinit();
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let lock = slf.get();
        let state = if lock.locked() { "locked" } else { "unlocked" };
        let backend = lock.lock.client().backend();
        format!("<{state} dlock.Lock key={} backend={backend} at {:p}>", dlock::show(lock.lock.key()), slf.as_ptr())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        let restore = py.import("dlock._dlock")?.getattr("_restore")?.unbind();
        let options = options::describe(py, &self.lock, self.on_loss)?;
        Ok((restore, (self.origin.clone(), self.lock.key().to_owned(), options)))
    }
}
