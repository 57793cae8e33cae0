//! dlock for C: functions that call the core. The core makes all decisions.

mod cancel;
pub mod ffi;
mod handle;
