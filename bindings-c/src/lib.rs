//! dlock for C: functions over the core's calls. What is decided is decided in the core.

pub mod ffi;
mod handle;
