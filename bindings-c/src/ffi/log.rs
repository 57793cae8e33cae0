//! The log: events as lines of text, for one callback of the caller.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use dlock::event::{Event, subscribe};
use dlock::log::{Level, Line};
use dlock::runtime::PerProcess;

use super::error::Status;
use super::{User, c_text, catch_panic, guard};

/// Debug: normal lock activity.
pub const DLOCK_LOG_DEBUG: i32 = 0;
/// Info.
pub const DLOCK_LOG_INFO: i32 = 1;
/// Warning: needs attention.
pub const DLOCK_LOG_WARN: i32 = 2;

const _: () = {
    let same = DLOCK_LOG_DEBUG == Level::Debug as i32 && DLOCK_LOG_INFO == Level::Info as i32;
    assert!(same && DLOCK_LOG_WARN == Level::Warn as i32, "the core's levels");
};

/// A function that receives one log line. The string is valid only during the call.
pub type Logger = Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

struct Log(unsafe extern "C" fn(*mut c_void, i32, *const c_char), User);

static LOG: ArcSwapOption<Log> = ArcSwapOption::const_empty();

/// Sets the callback of the log. It gets one line for each event from now on, in order, one at a time, on a thread of
/// its own. The former callback gets no more lines, but a call of it may still run. NULL removes the callback. A slow
/// callback delays no lock, but it misses lines. A child of fork has no callback until it sets one.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_set_log(callback: Logger, user: *mut c_void) -> Status {
    static SUBSCRIBED: PerProcess<()> = PerProcess::new();
    let set = || {
        LOG.store(callback.map(|callback| Arc::new(Log(callback, User::new(user)))));
        if callback.is_some() {
            SUBSCRIBED.try_get(|| subscribe(|event| catch_panic((), || tell(&event))))?;
        }
        Ok(())
    };
    // SAFETY: no error is asked for.
    unsafe { guard(ptr::null_mut(), set) }
}

fn tell(event: &Event) {
    let Some(log) = LOG.load_full() else { return };
    let line = Line::from(event);
    // SAFETY: the caller passed a function that takes these.
    unsafe { (log.0)(log.1.pointer(), line.level as i32, c_text(line.text).as_ptr()) };
}
