//! The protection of a call from `pthread_cancel`. A cancellation unwinds the stack, and frames of Rust that have
//! something to drop can't stand that. So a cancellation never takes effect inside a call.

#![allow(unsafe_code)]

#[cfg(unix)]
use std::ffi::c_int;

/// The values of `PTHREAD_CANCEL_DISABLE` and `PTHREAD_CANCEL_DEFERRED`.
#[cfg(unix)]
const OFF: (c_int, c_int) = if cfg!(target_vendor = "apple") { (0, 2) } else { (1, 0) };

#[cfg(unix)]
unsafe extern "C-unwind" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
    fn pthread_setcanceltype(kind: c_int, before: *mut c_int) -> c_int;
}

/// Makes the call, which doesn't unwind. A cancellation that arrives during the call takes effect after it.
#[cfg(unix)]
pub(crate) fn off<T: Copy>(call: impl FnOnce() -> T) -> T {
    let (mut state, mut kind) = OFF;
    // The type is changed as well. With glibc, an asynchronous cancellation that is on its way doesn't check the state
    // when it arrives.
    // SAFETY: both variables outlive the calls.
    unsafe {
        pthread_setcanceltype(OFF.1, &raw mut kind);
        pthread_setcancelstate(OFF.0, &raw mut state);
    }
    let result = call();
    // An asynchronous cancellation unwinds from here, where nothing is left to be dropped.
    // SAFETY: as above.
    unsafe {
        pthread_setcancelstate(state, &raw mut state);
        if kind != OFF.1 {
            pthread_setcanceltype(kind, &raw mut kind);
        }
    }
    result
}

/// Makes the call. Threads can't be cancelled on this platform.
#[cfg(not(unix))]
pub(crate) fn off<T: Copy>(call: impl FnOnce() -> T) -> T {
    call()
}
