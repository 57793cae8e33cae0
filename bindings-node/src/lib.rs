//! dlock for Node: functions that call the core. The JavaScript half builds its classes on them. The core makes all
//! decisions.

// The macros of napi generate unsafe code. All unsafe code written by hand is in `bridge`.
#![allow(unsafe_code, unreachable_pub)]
// Tests run without Node, so no code calls these functions.
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

/// The facts that the JavaScript half needs.
#[napi(object, object_from_js = false)]
pub struct Known {
    /// The name, the class and the code of each kind of error.
    pub kinds: Vec<Vec<&'static str>>,
    /// The name of each option of an acquire, and the kind of its value.
    pub options: Vec<(String, &'static str)>,
    pub version: &'static str,
}

#[napi(catch_unwind)]
pub fn known() -> Known {
    Known { kinds: error::kinds(), options: options::known(), version: env!("CARGO_PKG_VERSION") }
}

/// Registers a copy of the JavaScript half by its functions `failure` and `lost`. Returns the first argument of the
/// functions that take a caller.
#[napi(catch_unwind)]
pub fn join(env: Env, hooks: Object) -> Result<Unknown<'static>> {
    bridge::join(env, &hooks)
}

/// Shuts the library down at the end of the process.
#[napi(catch_unwind)]
pub fn shutdown() {
    bridge::shutdown();
}

/// Keeps the event loop alive until `let_go` was called as often.
#[napi(catch_unwind)]
pub fn hold(caller: Caller) {
    caller.hold();
}

#[napi(catch_unwind)]
pub fn let_go(caller: Caller) {
    caller.let_go();
}

/// Cancels a running call by its number.
#[napi(catch_unwind)]
pub fn cancel(caller: Caller, call: f64) {
    caller.cancel(call);
}

/// Returns the number of the call that was begun last.
#[napi(catch_unwind)]
pub fn last_call(caller: Caller) -> f64 {
    caller.last_call()
}
