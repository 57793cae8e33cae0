//! dlock for Node: functions over the core's calls, of which the JavaScript half makes its classes. What is decided is
//! decided in the core.

// The macros of napi write unsafe code; what is written by hand is in `bridge`.
#![allow(unsafe_code, unreachable_pub)]
// Without Node there is nobody to call the functions.
#![cfg_attr(test, allow(dead_code))]

mod bridge;
mod client;
mod error;
mod lease;
mod options;
mod slab;

use napi::Env;
use napi::bindgen_prelude::Result;
use napi_derive::napi;

use crate::bridge::{Fail, Lost, port};

/// What the JavaScript half has to know.
#[napi(object, object_from_js = false)]
pub struct Known {
    /// Of each kind of error its name, its class and its code.
    pub kinds: Vec<Vec<&'static str>>,
    pub version: &'static str,
}

/// Makes the two halves known to each other.
#[napi(catch_unwind)]
pub fn join(env: Env, fail: Fail, lost: Lost) -> Result<Known> {
    bridge::open(env, fail, lost)?;
    Ok(Known { kinds: error::kinds(), version: env!("CARGO_PKG_VERSION") })
}

/// For the end of the process.
#[napi(catch_unwind)]
pub fn shutdown() {
    bridge::shutdown();
}

/// Keeps the event loop alive, until let go as often.
#[napi(catch_unwind)]
pub fn hold(env: Env) -> Result<()> {
    port(env)?.hold();
    Ok(())
}

#[napi(catch_unwind)]
pub fn let_go(env: Env) -> Result<()> {
    port(env)?.let_go();
    Ok(())
}

/// Cancels a call under way, by the number it was given.
#[napi(catch_unwind)]
pub fn cancel(env: Env, call: f64) -> Result<()> {
    port(env)?.cancel(call);
    Ok(())
}

/// The number of the call that was begun last.
#[napi(catch_unwind)]
pub fn last_call(env: Env) -> Result<f64> {
    Ok(port(env)?.last_call())
}
