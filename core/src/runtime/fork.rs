//! Values that belong to one process.
//!
//! A forked child has none of its parent's threads. Everything that belongs to one process therefore lives in a
//! [`PerProcess`] slot. The child sees an empty slot and makes a value of its own. The parent's value is leaked, never
//! dropped: a drop would wait for threads that don't exist.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, Once, OnceLock};

#[cfg(unix)]
use super::fd_table;
use super::lock::lock;
use crate::error::Result;

static EPOCH: AtomicU32 = AtomicU32::new(1);

/// Counts the forks that led to this process: what was made in another epoch belongs to another process.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Acquire)
}

/// A value each process makes for itself, on first use. It is never dropped, not even with its slot.
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    slot: AtomicPtr<Stamped<T>>,
}

struct Stamped<T> {
    epoch: u32,
    value: OnceLock<T>,
    /// Held by the thread that makes a value, which may fail.
    making: Mutex<()>,
}

impl<T> PerProcess<T> {
    /// An empty slot.
    #[allow(clippy::new_without_default, reason = "a const constructor for statics")]
    pub const fn new() -> Self {
        Self { slot: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// This process's value, made now if there is none.
    pub fn get(&self, make: impl FnOnce() -> T) -> &'static T {
        self.stamped().value.get_or_init(make)
    }

    /// This process's value, made now if there is none. What fails leaves the slot empty, for the next one to try
    /// again.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_get(&self, make: impl FnOnce() -> Result<T>) -> Result<&'static T> {
        let stamped = self.stamped();
        if let Some(value) = stamped.value.get() {
            return Ok(value);
        }
        let _making = lock(&stamped.making);
        match stamped.value.get() {
            Some(value) => Ok(value),
            None => make().map(|value| stamped.value.get_or_init(|| value)),
        }
    }

    /// This process's value, if it was made.
    pub fn peek(&self) -> Option<&'static T> {
        // SAFETY: a non-null pointer came from `Box::into_raw` in `stamped` and is never freed.
        let stamped = unsafe { self.slot.load(Ordering::Acquire).as_ref() }?;
        if stamped.epoch == epoch() { stamped.value.get() } else { None }
    }

    fn stamped(&self) -> &'static Stamped<T> {
        watch_forks();
        loop {
            let seen = self.slot.load(Ordering::Acquire);
            // SAFETY: as in `peek`.
            if let Some(stamped) = unsafe { seen.as_ref() }
                && stamped.epoch == epoch()
            {
                return stamped;
            }
            let fresh =
                Box::into_raw(Box::new(Stamped { epoch: epoch(), value: OnceLock::new(), making: Mutex::new(()) }));
            match self.slot.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: just made by `Box::into_raw`, and never freed once it is in the slot.
                Ok(_) => return unsafe { &*fresh },
                // SAFETY: it never got into the slot, so nobody else has it.
                Err(_) => drop(unsafe { Box::from_raw(fresh) }),
            }
        }
    }
}

/// Makes this process notice forks from now on. Called by everything that makes something a child must not share.
#[cfg(unix)]
pub fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are `extern "C"` functions without captures that never unwind; `child` does only what
        // is allowed between fork and exec in a multi-threaded program: atomics and close(2).
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    });
}

/// There is no fork here.
#[cfg(not(unix))]
pub fn watch_forks() {
    let _: &Once;
}

#[cfg(unix)]
extern "C" fn prepare() {
    fd_table::freeze();
}

#[cfg(unix)]
extern "C" fn parent() {
    fd_table::thaw();
}

#[cfg(unix)]
extern "C" fn child() {
    EPOCH.fetch_add(1, Ordering::AcqRel);
    fd_table::close_all();
    fd_table::thaw();
}
