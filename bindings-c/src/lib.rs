//! dlock for C: functions over the core's calls. What is decided is decided in the core.

mod cancel;
pub mod ffi;
mod handle;
