//! JavaScript values as values of the core: milliseconds, options of a lock, options of a connection.

use std::ffi::CString;
use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;

use dlock::config::{Config, Value, ValueKind};
use dlock::options::{self, AcquireOption, Camel, OPTIONS, OptionKind, OptionValue, Unit};
use dlock::{Error, Lock, Result};
use napi::bindgen_prelude::{Either4, JsObjectValue, Object, Unknown};
use napi_derive::napi;

use crate::bridge::Caller;

/// Reads milliseconds. The error of a bad value names the option.
pub(crate) fn millis(what: impl Display, number: f64) -> Result<Duration> {
    Unit::Millis.duration(what, number)
}

pub(crate) fn in_millis(duration: Duration) -> f64 {
    Unit::Millis.number(duration)
}

/// Returns the name of each option of an acquire, and the kind of its value.
pub(crate) fn known() -> Vec<(String, &'static str)> {
    OPTIONS.iter().map(|option| (Camel(option.name).to_string(), option.kind.name())).collect()
}

/// Returns the lock with the options that the object has. Other options stay unchanged.
pub(crate) fn apply(mut lock: Lock, given: &Object<'_>) -> Result<Lock> {
    static NAMES: LazyLock<Vec<CString>> =
        LazyLock::new(|| known().into_iter().map(|(name, _)| CString::new(name).unwrap_or_default()).collect());
    for (option, name) in OPTIONS.iter().zip(&*NAMES) {
        let value = given.get_c_named_property_unchecked(name).map_err(|error| Error::invalid(error.reason))?;
        if let Some(value) = value {
            lock = lock.set(option, value_of(option, &value)?);
        }
    }
    Ok(lock)
}

/// Reads the value of an option of an acquire. The JavaScript half has checked its type.
fn value_of<'a>(option: &AcquireOption, given: &'a Either4<bool, f64, String, Vec<f64>>) -> Result<OptionValue<'a>> {
    let name = Camel(option.name);
    Ok(match (option.kind, given) {
        (OptionKind::Time, Either4::B(number)) => OptionValue::Time(millis(name, *number)?),
        (OptionKind::Flag, Either4::A(flag)) => OptionValue::Flag(*flag),
        (OptionKind::Text, Either4::C(text)) => OptionValue::Text(text),
        (OptionKind::Count, Either4::B(number)) => OptionValue::Count(options::count(name, *number)?),
        (OptionKind::Retry, Either4::D(pair)) if pair.len() == 2 => {
            OptionValue::Retry((options::count(options::RETRY[0], pair[0])?, millis(options::RETRY[1], pair[1])?))
        }
        (kind, _) => return Err(Error::invalid(format!("{name} is no {}", kind.name()))),
    })
}

/// Returns the error of an option that doesn't exist.
#[napi(catch_unwind)]
pub fn no_option(caller: Caller, name: String, known: Vec<String>) -> napi::Result<Unknown<'static>> {
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    caller.error(&options::unknown(&name, &known))
}

/// Returns the error of text that has no form in UTF-8.
#[napi(catch_unwind)]
pub fn no_unicode(caller: Caller, what: String, shown: String) -> napi::Result<Unknown<'static>> {
    caller.error(&options::no_unicode(what, shown))
}

/// One option of a connection, named as in a URL.
#[napi(object)]
pub struct Given {
    pub name: String,
    pub value: Either4<bool, f64, String, Vec<String>>,
}

/// Reads the options of a connection.
pub(crate) fn connection(backend: &str, given: Vec<Given>) -> Result<Vec<(String, Value)>> {
    let read = |Given { name, value }| {
        let value = match value {
            Either4::A(flag) => Value::Flag(flag),
            Either4::B(number) if Config::value_kind(backend, &name) == Some(ValueKind::Time) => {
                Value::Time(millis(&name, number)?)
            }
            Either4::B(number) => Value::Count(options::count(&name, number)?.into()),
            Either4::C(text) => Value::Text(text),
            Either4::D(list) => Value::List(list),
        };
        Ok((name, value))
    };
    given.into_iter().map(read).collect()
}
