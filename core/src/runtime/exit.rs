//! The end of the process: what is not begun any more from then on, what it waits for, and that the C library's `exit`
//! comes here by itself.

#![allow(unsafe_code)]

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use super::fork::epoch;
use crate::timing::limits;

/// The epoch of the process whose end has begun; 0: none yet. A child of fork begins with no end.
static ENDING: AtomicU32 = AtomicU32::new(0);
/// True if calls that wait for a lock stay where they are: the process is about to stop them anyway.
static SILENT: AtomicBool = AtomicBool::new(false);
/// The thread that ends the process: its exit handlers may still lock.
static THREAD: AtomicUsize = AtomicUsize::new(0);
/// Ends what this process holds; set with the first client.
static END: OnceLock<fn(Duration)> = OnceLock::new();
/// True if they have.
static LATE: AtomicBool = AtomicBool::new(false);
/// Acquires that stand, or may stand, at a backend.
static CONTENDING: AtomicUsize = AtomicUsize::new(0);

/// The answer to a call that wants to begin an acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Open,
    /// The process is ending, and this is one of its exit handlers.
    Late,
    /// It is ending, and nobody is to hear of it.
    Silent,
    /// All clients were closed.
    Shut,
}

/// Returns whether the calling thread may begin an acquire. What a late one leaves behind is given back as well.
pub(crate) fn entry() -> Entry {
    if !is_ending() {
        return Entry::Open;
    }
    if !SILENT.load(Ordering::Acquire) {
        return Entry::Shut;
    }
    if THREAD.load(Ordering::Acquire) != this_thread() {
        return Entry::Silent;
    }
    if !LATE.swap(true, Ordering::AcqRel) {
        register();
    }
    Entry::Late
}

#[cfg(unix)]
fn this_thread() -> usize {
    // SAFETY: always allowed; unlike what the standard library knows of a thread, there also at its end.
    unsafe { libc::pthread_self() as usize }
}

#[cfg(not(unix))]
fn this_thread() -> usize {
    1
}

/// Returns true if the end of the process has begun: nothing is locked any more.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::Acquire) == epoch() && !mutant!("client-exit-passes-turns-on")
}

/// Returns true if it has begun, and nobody is to hear of it.
pub(crate) fn ends_in_silence() -> bool {
    SILENT.load(Ordering::Acquire) && is_ending()
}

/// Begins it.
pub(crate) fn begin(silent: bool) {
    THREAD.store(this_thread(), Ordering::Release);
    LATE.store(false, Ordering::Release);
    SILENT.store(silent, Ordering::Release);
    ENDING.store(epoch(), Ordering::Release);
}

/// Makes an exit wait for the end of an acquire that stands at a backend.
pub(crate) struct Contending {
    epoch: u32,
}

impl Contending {
    pub(crate) fn new() -> Self {
        CONTENDING.fetch_add(1, Ordering::AcqRel);
        Self { epoch: epoch() }
    }
}

impl Drop for Contending {
    fn drop(&mut self) {
        if self.epoch == epoch() {
            CONTENDING.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Sets what an exit does to end what this process holds.
pub(crate) fn at_end(end: fn(Duration)) {
    let _ = END.set(end);
}

/// For this process's first work: nothing is left of its parent's.
pub(super) fn start() {
    CONTENDING.store(0, Ordering::Release);
    registered();
}

/// Where a program is loaded with the library, this is noted before all that the program itself notes for its end, and
/// so comes after it: its exit handlers and the destructors of its static objects find their locks as they left them.
#[cfg(unix)]
#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".init_array"))]
static LOADED: extern "C" fn() = registered;

extern "C" fn registered() {
    static ONCE: Once = Once::new();
    ONCE.call_once(register);
}

/// Registers the end of the process here. While it ends: as the next step.
fn register() {
    #[cfg(unix)]
    // SAFETY: an `extern "C"` function that never unwinds. The library is never unmapped before the process ends.
    unsafe {
        libc::atexit(at_exit)
    };
}

/// Ends what this process holds: called by `exit` and by the return of `main`.
#[cfg(unix)]
extern "C" fn at_exit() {
    if (!is_ending() || LATE.load(Ordering::Acquire))
        && let Some(end) = END.get()
    {
        let _ = catch_unwind(|| end(limits::EXIT));
    }
}

/// Returns true if an acquire may have a place at a backend.
pub(super) fn is_contending() -> bool {
    CONTENDING.load(Ordering::Acquire) > 0
}
