//! `Lease`, and the event of its loss.

use std::ffi::CString;
use std::sync::{Mutex, MutexGuard};

use dlock::options::Unit;
use dlock::runtime::lock;
use dlock::{Op, ReleaseOutcome, State};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyResourceWarning;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use crate::aio::{self, Coroutine};
use crate::bridge;
use crate::error::raised;
use crate::options::{OnLoss, seconds};
use crate::port::LoopPort;

/// A lock that is held until it is released, lost or collected.
#[pyclass(frozen, weakref, module = "dlock", name = "Lease")]
pub(crate) struct Lease {
    lease: dlock::Lease,
    on_loss: OnLoss,
    /// The callbacks for the loss. They are kept here, where the garbage collector sees them. Each is taken out once.
    callbacks: Mutex<Vec<Option<Py<PyAny>>>>,
}

impl Lease {
    pub(crate) fn new(py: Python<'_>, lease: dlock::Lease, on_loss: OnLoss) -> PyResult<Py<Self>> {
        Py::new(py, Self { lease, on_loss, callbacks: Mutex::default() })
    }

    pub(crate) fn core(&self) -> &dlock::Lease {
        &self.lease
    }

    /// Returns true if the lease is held. A lease isn't held after a fork or a release.
    pub(crate) fn stands(&self) -> bool {
        self.lease.is_held()
    }

    /// Begins the release of the lease.
    pub(crate) fn give(&self) -> Op<ReleaseOutcome> {
        self.lease.release()
    }

    /// Releases the lease in the background, without a warning.
    pub(crate) fn abandon(&self) {
        drop(self.give().on_done(|_| ()));
    }

    pub(crate) fn when_lost(&self) -> OnLoss {
        self.on_loss
    }

    /// Warns that a lease was not released.
    pub(crate) fn warn(py: Python<'_>, key: &str, why: &str) {
        let text = CString::new(format!("unreleased dlock.Lease of key {}{why}", dlock::show(key))).unwrap_or_default();
        if let Err(error) = PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &text, 1) {
            error.write_unraisable(py, None);
        }
    }

    fn released(on_loss: OnLoss, lease: &dlock::Lease, ended: ReleaseOutcome, py: Python<'_>) -> PyResult<()> {
        if ended == ReleaseOutcome::Lost && on_loss == OnLoss::Raise { Err(raised(py, &lease.loss())) } else { Ok(()) }
    }

    fn callbacks(&self) -> MutexGuard<'_, Vec<Option<Py<PyAny>>>> {
        lock(&self.callbacks)
    }

    /// Calls the callback of this number, if the lease still exists.
    fn tell(py: Python<'_>, weak: &Py<PyWeakrefReference>, number: usize) -> PyResult<()> {
        let Some(lease) = weak.bind(py).upgrade() else { return Ok(()) };
        let lease = lease.cast_into::<Self>()?;
        let callback = lease.get().callbacks().get_mut(number).and_then(Option::take);
        let Some(callback) = callback else { return Ok(()) };
        if let Err(error) = callback.call1(py, (lease,)) {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
        Ok(())
    }
}

#[pymethods]
impl Lease {
    #[getter]
    fn key(&self) -> &str {
        self.lease.key()
    }

    #[getter]
    fn token(&self) -> String {
        self.lease.token()
    }

    #[getter]
    fn fence(&self) -> Option<u64> {
        self.lease.fence()
    }

    #[getter]
    fn ttl(&self) -> f64 {
        Unit::Seconds.number(self.lease.ttl())
    }

    #[getter]
    fn lost(slf: Py<Self>) -> Lost {
        Lost { lease: slf }
    }

    fn valid_for(&self) -> f64 {
        Unit::Seconds.number(self.lease.valid_for())
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.lease.check().map_err(|error| raised(py, &error))
    }

    #[pyo3(signature = (ttl=None))]
    fn renew(&self, py: Python<'_>, ttl: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let ttl = ttl.map(|ttl| seconds("ttl", &ttl)).transpose()?;
        bridge::wait(py, self.lease.renew(ttl))
    }

    #[pyo3(signature = (ttl=None))]
    fn arenew(slf: Py<Self>, ttl: Option<Bound<'_, PyAny>>) -> PyResult<Coroutine> {
        let ttl = ttl.map(|ttl| seconds("ttl", &ttl)).transpose()?;
        Ok(aio::call(move |_| Ok(slf.get().lease.renew(ttl)), |py, ()| Ok(py.None())))
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let ended = bridge::wait(py, self.give())?;
        Self::released(self.on_loss, &self.lease, ended, py)
    }

    fn arelease(slf: Py<Self>, py: Python<'_>) -> Coroutine {
        let lease = slf.clone_ref(py);
        aio::call(
            move |_| Ok(slf.get().give()),
            move |py, ended| {
                let lease = lease.get();
                Self::released(lease.on_loss, &lease.lease, ended, py).map(|()| py.None())
            },
        )
    }

    /// Waits for the end of the lease. Returns True if it was lost, False if it was released.
    fn wait_lost(slf: Py<Self>) -> Coroutine {
        aio::call(
            move |_| Ok(slf.get().lease.lost()),
            |py, lost| Ok(lost.into_pyobject(py)?.to_owned().into_any().unbind()),
        )
    }

    fn on_lost(slf: &Bound<'_, Self>, callback: Py<PyAny>) -> PyResult<()> {
        let py = slf.py();
        let port = aio::running_loop(py)?.map(|running| LoopPort::of(&running)).transpose()?;
        let this = slf.get();
        let number = {
            let mut callbacks = this.callbacks();
            callbacks.push(Some(callback));
            callbacks.len() - 1
        };
        let weak = PyWeakrefReference::new(slf)?.unbind();
        // The hook runs on a thread of the core. The callback belongs on the loop that registered it, or on the pool.
        this.lease.on_lost_here(move || match port {
            Some(port) => port.post(Box::new(move |py| Self::tell(py, &weak, number))),
            None => bridge::pool(move |py| {
                if let Err(error) = Self::tell(py, &weak, number) {
                    error.write_unraisable(py, None);
                }
            }),
        });
        Ok(())
    }

    /// Releases the lease in the background, without a warning.
    fn _abandon(&self) {
        self.abandon();
    }

    fn __repr__(&self) -> String {
        let state = match self.lease.state() {
            State::Held if self.lease.is_held() => "held",
            State::Released => "released",
            State::Held | State::Lost if self.lease.check().is_err_and(|e| e.kind() == dlock::Kind::NotHeld) => {
                "not held"
            }
            _ => "lost",
        };
        let fence = self.lease.fence().map_or_else(|| "None".to_owned(), |fence| fence.to_string());
        format!("<{state} dlock.Lease key={} fence={fence}>", dlock::show(self.lease.key()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(callbacks) = self.callbacks.try_lock() {
            for callback in callbacks.iter().flatten() {
                visit.call(callback)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let left = std::mem::take(&mut *self.callbacks());
        drop(left);
    }
}

/// Warns of a lease that is collected while it is held. Afterwards it is released.
impl Drop for Lease {
    fn drop(&mut self) {
        if !self.lease.is_held() {
            return;
        }
        bridge::aside(|py| Self::warn(py, self.lease.key(), ""));
    }
}

/// The loss of a lease, as an event.
#[pyclass(frozen, module = "dlock", name = "Lost")]
pub(crate) struct Lost {
    lease: Py<Lease>,
}

#[pymethods]
impl Lost {
    fn is_set(&self) -> bool {
        let lease = &self.lease.get().lease;
        !lease.is_held() && lease.state() == State::Lost
    }

    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        let limit = timeout.map(|timeout| seconds("timeout", &timeout)).transpose()?;
        bridge::wait(py, self.lease.get().lease.lost_within(limit))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.lease)
    }

    fn __repr__(&self) -> String {
        let state = if self.is_set() { "set" } else { "unset" };
        format!("<dlock.Lost key={}: {state}>", dlock::show(self.lease.get().lease.key()))
    }
}
