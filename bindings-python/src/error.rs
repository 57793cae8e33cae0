//! The core's kinds of error as Python classes, made from one table.

use dlock::{Error, Kind};
use pyo3::exceptions::{
    PyConnectionError, PyException, PyNotImplementedError, PyRuntimeError, PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

static BASE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static CLASSES: PyOnceLock<Vec<(Kind, Py<PyAny>)>> = PyOnceLock::new();

/// Returns the class of a kind: its name, its docstring, and the built-in class that it also is.
fn class_of(py: Python<'_>, kind: Kind) -> Option<(&'static str, &'static str, Option<Bound<'_, PyType>>)> {
    Some(match kind {
        Kind::Timeout => {
            ("LockTimeout", "The lock was busy until the deadline.", Some(py.get_type::<PyTimeoutError>()))
        }
        Kind::Lost => ("LockLost", "The lease is no longer ours, or can't be proven to be.", None),
        Kind::NotHeld => (
            "NotHeld",
            "Nothing is held: the lock is not locked, or its lease was made before a fork.",
            Some(py.get_type::<PyRuntimeError>()),
        ),
        Kind::Backend => (
            "BackendError",
            "The backend can't be reached, refuses or is overloaded.",
            Some(py.get_type::<PyConnectionError>()),
        ),
        Kind::Invalid => (
            "InvalidArgument",
            "A key, option, URL or configuration that can't be used.",
            Some(py.get_type::<PyValueError>()),
        ),
        Kind::Unsupported => (
            "Unsupported",
            "This backend can't do it; the message names those that can.",
            Some(py.get_type::<PyNotImplementedError>()),
        ),
        Kind::Internal => ("InternalError", "A defect of dlock.", None),
        Kind::Deadlock => (
            "DeadlockError",
            "The caller itself holds the key, so the wait could never end.",
            Some(py.get_type::<PyRuntimeError>()),
        ),
        // Python has its own exceptions for a cancellation: CancelledError, KeyboardInterrupt.
        _ => return None,
    })
}

/// Adds the classes to the module.
pub(crate) fn register<'py>(module: &Bound<'py, PyModule>) -> PyResult<()> {
    let py = module.py();
    let make = |name: &str, bases: Bound<'py, PyTuple>, doc: &str, kind: Option<Kind>| {
        let members = PyDict::new(py);
        members.set_item("__module__", "dlock")?;
        members.set_item("__doc__", doc)?;
        members.set_item("kind", kind.map(Kind::name))?;
        members.set_item("temporary", false)?;
        members.set_item("key", py.None())?;
        members.set_item("backend", py.None())?;
        let class = py.get_type::<PyType>().call1((name, bases, members))?;
        module.add(name, &class)?;
        PyResult::Ok(class)
    };
    let base = make(
        "Error",
        PyTuple::new(py, [py.get_type::<PyException>()])?,
        "Every error of dlock. kind, temporary (trying again can help), key and backend say what it concerns.",
        None,
    )?;
    let mut classes = Vec::new();
    for kind in Kind::ALL {
        let Some((name, doc, builtin)) = class_of(py, kind) else {
            continue;
        };
        let bases = match builtin {
            Some(builtin) => PyTuple::new(py, [base.as_any(), builtin.as_any()])?,
            None => PyTuple::new(py, [base.as_any()])?,
        };
        classes.push((kind, make(name, bases, doc, Some(kind))?.unbind()));
    }
    // If the classes were made before, the former ones stay.
    let _ = BASE.set(py, base.unbind());
    let _ = CLASSES.set(py, classes);
    Ok(())
}

/// Returns the core's error as a Python exception.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    exception(py, error).unwrap_or_else(|failed| failed)
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let classes = CLASSES.get(py).into_iter().flatten();
    let class = classes.filter(|(kind, _)| *kind == error.kind()).map(|(_, class)| class).next();
    let Some(class) = class.or_else(|| BASE.get(py)) else {
        return Ok(PyRuntimeError::new_err(error.to_string()));
    };
    let value = class.bind(py).call1((error.to_string(),))?;
    value.setattr("temporary", error.is_temporary())?;
    value.setattr("key", error.key())?;
    value.setattr("backend", error.backend())?;
    Ok(PyErr::from_value(value))
}

/// Returns the exception of an argument that can be refused without a backend.
pub(crate) fn invalid(py: Python<'_>, message: impl Into<String>) -> PyErr {
    raised(py, &Error::invalid(message))
}

/// Returns true if the exception is of this kind.
pub(crate) fn is(py: Python<'_>, error: &PyErr, kind: Kind) -> bool {
    let mut classes = CLASSES.get(py).into_iter().flatten();
    classes.any(|(of, class)| *of == kind && error.matches(py, class.bind(py)).unwrap_or(false))
}
