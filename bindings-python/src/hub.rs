//! The wait of a blocking call where gevent or eventlet have patched threads. The call waits through their hub, so the
//! thread's other greenlets go on. One of them may hold the lock.

use std::sync::{Arc, Mutex};

use dlock::runtime::{Wake, lock};
use dlock::{Op, limits};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::raised;
use crate::who;

/// Returns the function that waits through this thread's hub, if the thread has one.
pub(crate) fn here(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || py.import("sys")?.getattr("modules").map(Bound::unbind))?;
    // Without greenlet there is neither gevent nor eventlet.
    if !modules.bind(py).contains(intern!(py, "greenlet"))? {
        return Ok(None);
    }
    static HERE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let hub = HERE.import(py, "dlock._hub", "here")?.call0()?;
    if hub.is_none() {
        return Ok(None);
    }
    who::greenlets();
    Ok(Some(hub))
}

/// Waits for a call through the hub. Any exception that the hub raises here ends the wait, as for Ctrl-C, a timeout or
/// a kill.
pub(crate) fn wait<T: Send + 'static>(hub: &Bound<'_, PyAny>, op: Op<T>) -> PyResult<T> {
    let py = hub.py();
    let wake = Arc::new(Wake::new().map_err(PyErr::from)?);
    let result = Arc::new(Mutex::new(None));
    let (told, ring) = (result.clone(), wake.clone());
    let canceller = op.on_done(move |result| {
        *lock(&told) = Some(result);
        ring.ring();
    });
    if let Err(interrupt) = hub.call1((wake.descriptor(),)) {
        canceller.cancel();
        // A second interrupt ends this wait. Then the withdrawal goes on by itself.
        if hub.call1((wake.descriptor(), limits::WITHDRAWAL.as_secs_f64())).is_err() {
            canceller.cancel();
        }
        return Err(interrupt);
    }
    let result = lock(&result).take();
    let result = result.ok_or_else(|| PyRuntimeError::new_err("the hub came back before the call was over"))?;
    result.map_err(|error| raised(py, &error))
}
