//! JavaScript values as the core's: milliseconds, options of a lock, options of a connection.

use std::time::Duration;

use dlock::config::{Config, Value, ValueKind};
use dlock::{Error, Lock, Result};
use napi::bindgen_prelude::Either4;
use napi_derive::napi;

use crate::bridge::Caller;

/// Milliseconds. Names the option in what it complains of.
pub(crate) fn millis(what: &str, number: f64) -> Result<Duration> {
    if number.is_nan() || number < 0.0 {
        return Err(Error::invalid(format!("{what} of {number} ms is not a duration: use 0 or more milliseconds")));
    }
    Duration::try_from_secs_f64(number / 1000.0).map_err(|_| {
        Error::invalid(format!("{what} of {number} ms is too long: use at most 366 days, or leave it out"))
    })
}

pub(crate) fn in_millis(duration: Duration) -> f64 {
    match duration {
        Duration::MAX => f64::INFINITY,
        duration => duration.as_secs_f64() * 1000.0,
    }
}

fn count(what: &str, number: f64) -> Result<u32> {
    let limit = f64::from(u32::MAX);
    if number.fract() != 0.0 || !(0.0..=limit).contains(&number) {
        return Err(Error::invalid(format!("{what} of {number} is no whole number from 0 to {limit}")));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(number as u32)
}

/// How a lock is held; what isn't given stays as it is.
#[napi(object)]
pub struct Terms {
    pub ttl: Option<f64>,
    pub wait: Option<f64>,
    /// How often, and how long in between.
    pub retry: Option<Vec<f64>>,
    pub auto_renew: Option<bool>,
    pub max_hold: Option<f64>,
    pub token: Option<String>,
    pub label: Option<String>,
    pub fair: Option<bool>,
    pub handoff: Option<f64>,
}

impl Terms {
    pub(crate) fn apply(self, mut lock: Lock) -> Result<Lock> {
        if let Some(ttl) = self.ttl {
            lock = lock.ttl(millis("ttl", ttl)?);
        }
        if let Some(wait) = self.wait {
            lock = lock.wait(millis("wait", wait)?);
        }
        if let Some([tries, delay]) = self.retry.as_deref() {
            lock = lock.retry((count("retry: tries", *tries)?, millis("retry: delay", *delay)?));
        }
        if let Some(auto_renew) = self.auto_renew {
            lock = lock.auto_renew(auto_renew);
        }
        if let Some(hold) = self.max_hold {
            lock = lock.max_hold(millis("maxHold", hold)?);
        }
        if let Some(token) = &self.token {
            lock = lock.token(token);
        }
        if let Some(label) = &self.label {
            lock = lock.label(label);
        }
        if let Some(fair) = self.fair {
            lock = lock.fair(fair);
        }
        if let Some(times) = self.handoff {
            lock = lock.handoff(count("handoff", times)?);
        }
        Ok(lock)
    }
}

/// The end of a message about an option that doesn't exist: the one that was probably meant.
#[napi(catch_unwind)]
pub fn did_you_mean(_caller: Caller, name: String, known: Vec<String>) -> String {
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    dlock::options::did_you_mean(&name, &known)
}

/// One option of a connection, named as in a URL.
#[napi(object)]
pub struct Given {
    pub name: String,
    pub value: Either4<bool, f64, String, Vec<String>>,
}

/// The options of a connection.
pub(crate) fn connection(backend: &str, given: Vec<Given>) -> Result<Vec<(String, Value)>> {
    let read = |Given { name, value }| {
        let value = match value {
            Either4::A(flag) => Value::Flag(flag),
            Either4::B(number) if Config::value_kind(backend, &name) == Some(ValueKind::Time) => {
                Value::Time(millis(&name, number)?)
            }
            Either4::B(number) => Value::Count(count(&name, number)?.into()),
            Either4::C(text) => Value::Text(text),
            Either4::D(list) => Value::List(list),
        };
        Ok((name, value))
    };
    given.into_iter().map(read).collect()
}
