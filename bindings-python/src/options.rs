//! Python values as values of the core: seconds, options of a lock, options of a connection.

use std::time::Duration;

use dlock::Lock;
use dlock::config::Value;
use dlock::options::{self, AcquireOption, OPTIONS, OptionKind, OptionValue, Unit};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::error::{invalid, raised};

/// Reads seconds from an int, a float or a timedelta. The error of a bad value names the option.
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
    Unit::Seconds.duration(what, number).map_err(|error| raised(py, &error))
}

/// Reads the value of an option of an acquire.
fn value_of<'a>(option: &AcquireOption, given: &'a Bound<'_, PyAny>) -> PyResult<OptionValue<'a>> {
    let name = option.name;
    Ok(match option.kind {
        OptionKind::Time => OptionValue::Time(seconds(name, given)?),
        OptionKind::Flag => OptionValue::Flag(given.extract()?),
        OptionKind::Text => OptionValue::Text(text(name, given)?),
        OptionKind::Count => OptionValue::Count(count(name, given)?),
        OptionKind::Retry => {
            let (tries, delay) = given.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().map_err(|_| {
                PyTypeError::new_err("retry must be (tries, delay): a number and seconds, for example (3, 0.2)")
            })?;
            OptionValue::Retry((count(options::RETRY[0], &tries)?, seconds(options::RETRY[1], &delay)?))
        }
    })
}

fn count(what: &str, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    value.extract::<u32>().map_err(|error| {
        let py = value.py();
        if error.is_instance_of::<PyTypeError>(py) { error } else { raised(py, &options::no_count(what, value)) }
    })
}

/// The effect of a lost lease, besides the notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// The end of the `with` block and `release` raise. In `async with` the body is cancelled.
    Raise,
    /// The loss is only reported.
    Notify,
}

impl OnLoss {
    /// The name of the option. Only Python has it.
    const NAME: &str = "on_loss";
    const WORDS: [(&str, Self); 2] = [("raise", Self::Raise), ("notify", Self::Notify)];

    fn of(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let word = value.extract::<String>()?;
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, on_loss)| *on_loss).ok_or_else(|| {
            let text = format!("on_loss={word:?} is unknown: use \"raise\" (the default) or \"notify\"");
            invalid(value.py(), text)
        })
    }
}

/// Returns the lock with the options that are given by name. Other options stay unchanged.
pub(crate) fn apply(mut lock: Lock, options: Option<&Bound<'_, PyDict>>) -> PyResult<(Lock, OnLoss)> {
    let mut on_loss = OnLoss::Raise;
    for (name, value) in options.into_iter().flatten() {
        let name = name.cast::<PyString>()?.to_str()?;
        match options::find(name) {
            Some(_) if value.is_none() => {}
            Some(option) => lock = lock.set(option, value_of(option, &value)?),
            None if name == OnLoss::NAME && value.is_none() => {}
            None if name == OnLoss::NAME => on_loss = OnLoss::of(&value)?,
            None => {
                let known: Vec<_> = OPTIONS.iter().map(|option| option.name).chain([OnLoss::NAME]).collect();
                return Err(PyTypeError::new_err(options::unknown(name, &known).message().to_owned()));
            }
        }
    }
    Ok((lock, on_loss))
}

/// Reads text that can be sent: a str with no lone surrogates.
pub(crate) fn text<'a>(what: &str, value: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let text = value.cast::<PyString>().map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
        PyTypeError::new_err(format!("{what} must be a str, not {kind}"))
    })?;
    text.to_str().map_err(|_| {
        let shown = value.repr().map_or_else(|_| String::new(), |shown| shown.to_string());
        raised(value.py(), &options::no_unicode(what, shown))
    })
}

/// Returns the options of a lock, to make an equal lock elsewhere.
pub(crate) fn describe<'py>(py: Python<'py>, lock: &Lock, on_loss: OnLoss) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for option in OPTIONS {
        match option.value(lock.options()) {
            None => {}
            Some(OptionValue::Time(time)) => all.set_item(option.name, time.as_secs_f64())?,
            Some(OptionValue::Flag(flag)) => all.set_item(option.name, flag)?,
            Some(OptionValue::Text(text)) => all.set_item(option.name, text)?,
            Some(OptionValue::Count(count)) => all.set_item(option.name, count)?,
            Some(OptionValue::Retry((tries, delay))) => all.set_item(option.name, (tries, delay.as_secs_f64()))?,
        }
    }
    let word = OnLoss::WORDS.iter().find(|(_, known)| *known == on_loss).map(|(word, _)| *word);
    all.set_item(OnLoss::NAME, word)?;
    Ok(all)
}

/// An argument that may be left out. To leave it out is not the same as to pass None.
pub(crate) struct Given<'py>(pub(crate) Option<Bound<'py, PyAny>>);

impl<'py> Given<'py> {
    /// Returns the argument, if it was given. Refuses None: it means that a variable isn't set, and never the default.
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

/// Reads the options of a connection.
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

/// Reads the two arguments of `Lock.acquire` by the rules of `threading.Lock`. Returns the time to wait, or `None` for
/// the lock's own option.
pub(crate) fn timeout(
    py: Python<'_>,
    blocking: bool,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Option<Duration>>> {
    /// The value of `threading.TIMEOUT_MAX` on 64-bit systems.
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
