//! dlock for Node: functions over the core's calls, of which the JavaScript half makes its classes. What is decided is
//! decided in the core.

// The macros of napi write unsafe code; what is written by hand is in `bridge`.
#![allow(unsafe_code, unreachable_pub)]
// Without Node there is nobody to call the functions.
#![cfg_attr(test, allow(dead_code))]

mod bridge;
mod client;
mod error;
mod handles;
mod lease;
mod numbers;
mod options;

use napi::Env;
use napi::bindgen_prelude::{Object, Result, Unknown};
use napi_derive::napi;

use crate::bridge::Caller;

/// What the JavaScript half has to know.
#[napi(object, object_from_js = false)]
pub struct Known {
    /// Of each kind of error its name, its class and its code.
    pub kinds: Vec<Vec<&'static str>>,
    /// Of each option of an acquire its name, and the kind of its value.
    pub options: Vec<(String, &'static str)>,
    pub version: &'static str,
}

#[napi(catch_unwind)]
pub fn known() -> Known {
    Known { kinds: error::kinds(), options: options::known(), version: env!("CARGO_PKG_VERSION") }
}

/// Makes a copy of the JavaScript half known by its functions `failure` and `lost`; gives what every other function takes
/// first.
#[napi(catch_unwind)]
pub fn join(env: Env, hooks: Object) -> Result<Unknown<'static>> {
    bridge::join(env, &hooks)
}

/// For the end of the process.
#[napi(catch_unwind)]
pub fn shutdown() {
    bridge::shutdown();
}

/// Keeps the event loop alive, until let go as often.
#[napi(catch_unwind)]
pub fn hold(caller: Caller) {
    caller.hold();
}

#[napi(catch_unwind)]
pub fn let_go(caller: Caller) {
    caller.let_go();
}

/// Cancels a call under way, by the number it was given.
#[napi(catch_unwind)]
pub fn cancel(caller: Caller, call: f64) {
    caller.cancel(call);
}

/// The number of the call that was begun last.
#[napi(catch_unwind)]
pub fn last_call(caller: Caller) -> f64 {
    caller.last_call()
}
