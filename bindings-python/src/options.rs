//! Python values as the core's: seconds, options of a lock, options of a connection.

use std::time::Duration;

use dlock::Lock;
use dlock::config::Value;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::error::{invalid, raised};

/// Seconds as int, float or timedelta. Names the option in what it complains of.
pub(crate) fn seconds(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let py = value.py();
    let number = if value.is_instance_of::<PyDelta>() {
        value.call_method0("total_seconds")?.extract::<f64>()?
    } else if value.is_instance_of::<PyBool>()
        || !(value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>())
    {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{what} must be seconds (int or float) or a timedelta, not {kind}")));
    } else {
        value.extract::<f64>()?
    };
    if number.is_nan() || number < 0.0 {
        return Err(invalid(py, format!("{what} of {number} s is not a duration: use 0 or more seconds")));
    }
    Duration::try_from_secs_f64(number)
        .map_err(|_| invalid(py, format!("{what} of {number} s is too long: use at most 366 days, or leave it out")))
}

/// What a lost lease does, besides being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// The end of the `with` block and `release` raise; in `async with` the body is cancelled.
    Raise,
    /// It is only told.
    Notify,
}

/// Every option of a lock: those of every language, and what a block does at a loss.
const NAMES: [&str; dlock::options::NAMES.len() + 1] = {
    let mut all = ["on_loss"; dlock::options::NAMES.len() + 1];
    all.split_at_mut(dlock::options::NAMES.len()).0.copy_from_slice(&dlock::options::NAMES);
    all
};

/// The lock with the options given by name; what was not given stays as it is.
pub(crate) fn apply(mut lock: Lock, options: Option<&Bound<'_, PyDict>>) -> PyResult<(Lock, OnLoss)> {
    let mut on_loss = OnLoss::Raise;
    for (name, value) in options.into_iter().flatten() {
        let name = name.extract::<String>()?;
        if value.is_none() && NAMES.contains(&name.as_str()) {
            continue;
        }
        lock = match name.as_str() {
            "ttl" => lock.ttl(seconds("ttl", &value)?),
            "wait" => lock.wait(seconds("wait", &value)?),
            "max_hold" => lock.max_hold(seconds("max_hold", &value)?),
            "auto_renew" => lock.auto_renew(value.extract()?),
            "token" => lock.token(&text("token", &value)?),
            "label" => lock.label(&text("label", &value)?),
            "fair" => lock.fair(value.extract()?),
            "handoff" => lock.handoff(count("handoff", &value)?),
            "retry" => {
                let (tries, delay) = value.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().map_err(|_| {
                    PyTypeError::new_err("retry must be (tries, delay): a number and seconds, for example (3, 0.2)")
                })?;
                lock.retry((count("retry: tries", &tries)?, seconds("retry: delay", &delay)?))
            }
            "on_loss" => {
                on_loss = match value.extract::<String>()?.as_str() {
                    "raise" => OnLoss::Raise,
                    "notify" => OnLoss::Notify,
                    other => {
                        let text = format!("on_loss={other:?} is unknown: use \"raise\" (the default) or \"notify\"");
                        return Err(invalid(value.py(), text));
                    }
                };
                lock
            }
            other => {
                let (hint, names) = (dlock::options::did_you_mean(other, &NAMES), NAMES.join(", "));
                return Err(PyTypeError::new_err(format!("there is no option {other:?}{hint}; there are {names}")));
            }
        };
    }
    Ok((lock, on_loss))
}

fn count(what: &str, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    value.extract::<u32>().map_err(|error| {
        if error.is_instance_of::<PyTypeError>(value.py()) {
            return error;
        }
        invalid(value.py(), format!("{what} of {value} is out of range: use 0 to {}", u32::MAX))
    })
}

/// Text that can be sent: a str with no lone surrogates.
pub(crate) fn text(what: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value.cast::<PyString>().map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
        PyTypeError::new_err(format!("{what} must be a str, not {kind}"))
    })?;
    text.to_str().map(str::to_owned).map_err(|_| {
        invalid(
            value.py(),
            format!(
                "{what} {} is not valid Unicode: it has lone surrogates",
                value.repr().map_or_else(|_| String::new(), |r| r.to_string())
            ),
        )
    })
}

/// The lock's options, to make an equal one elsewhere.
pub(crate) fn describe<'py>(py: Python<'py>, lock: &Lock, on_loss: OnLoss) -> PyResult<Bound<'py, PyDict>> {
    let given = lock.options();
    let options = PyDict::new(py);
    options.set_item("ttl", given.ttl.as_secs_f64())?;
    options.set_item("wait", given.wait.map(|wait| wait.as_secs_f64()))?;
    options.set_item("retry", given.retry.map(|(tries, delay)| (tries, delay.as_secs_f64())))?;
    options.set_item("auto_renew", given.auto_renew)?;
    options.set_item("max_hold", given.max_hold.map(|hold| hold.as_secs_f64()))?;
    options.set_item("token", given.token.as_deref())?;
    options.set_item("label", given.label.as_deref())?;
    options.set_item("fair", given.fair)?;
    options.set_item("handoff", given.handoff)?;
    options.set_item("on_loss", if on_loss == OnLoss::Notify { "notify" } else { "raise" })?;
    Ok(options)
}

/// An argument that may be left out, unlike one that is None.
pub(crate) struct Given<'py>(pub(crate) Option<Bound<'py, PyAny>>);

impl<'py> Given<'py> {
    /// What was given; None means that a variable isn't set, and never the default.
    pub(crate) fn needed(self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.0 {
            Some(value) if value.is_none() => Err(invalid(
                value.py(),
                format!(
                    "{name} is None; perhaps a variable isn't set. Give a value, or leave it out: connect() is the default client"
                ),
            )),
            given => Ok(given),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = std::convert::Infallible;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self(Some(value.to_owned())))
    }
}

/// The options of a connection.
pub(crate) fn connection(options: &Bound<'_, PyDict>) -> PyResult<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for (name, value) in options {
        if value.is_none() {
            continue;
        }
        let name = name.extract::<String>()?;
        let value = if value.is_instance_of::<PyBool>() {
            Value::Flag(value.extract()?)
        } else if let Ok(text) = value.cast::<PyString>() {
            Value::Text(
                text.to_str().map_err(|_| PyValueError::new_err(format!("{name} is not valid Unicode")))?.to_owned(),
            )
        } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            Value::List(value.extract()?)
        } else if value.is_instance_of::<PyInt>() {
            Value::Count(
                value
                    .extract()
                    .map_err(|_| invalid(value.py(), format!("{name}={value} is out of range: use 0 or more")))?,
            )
        } else if value.hasattr("__fspath__")? {
            Value::Text(value.call_method0("__fspath__")?.extract()?)
        } else {
            Value::Time(seconds(&name, &value)?)
        };
        all.push((name, value));
    }
    Ok(all)
}

/// `Lock.acquire`'s two arguments, with `threading.Lock`'s rules: how long to wait, or as the lock says.
pub(crate) fn timeout(
    py: Python<'_>,
    blocking: bool,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Option<Duration>>> {
    /// `threading.TIMEOUT_MAX` of 64-bit systems.
    const TIMEOUT_MAX: f64 = 9_223_372_036.0;
    let Some(given) = timeout else {
        return Ok(if blocking { None } else { Some(Some(Duration::ZERO)) });
    };
    let number = match given.extract::<f64>() {
        Ok(number) => number,
        Err(_) => seconds("timeout", given)?.as_secs_f64(),
    };
    if number == -1.0 {
        return if blocking { Ok(Some(None)) } else { Ok(Some(Some(Duration::ZERO))) };
    }
    if !blocking {
        return Err(PyValueError::new_err("can't specify a timeout for a non-blocking call"));
    }
    if number.is_nan() || number < 0.0 {
        return Err(PyValueError::new_err("timeout value must be a non-negative number, or -1 to wait for ever"));
    }
    if number > TIMEOUT_MAX {
        return Err(pyo3::exceptions::PyOverflowError::new_err("timeout value is too large"));
    }
    let wait =
        Duration::try_from_secs_f64(number).map_err(|error| raised(py, &dlock::Error::invalid(error.to_string())))?;
    Ok(Some(Some(wait)))
}
