//! The table of the descriptors that a child of fork closes.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

pub(super) const NONE: i32 = -1;
const CHUNK: usize = 1024;

/// A piece of the table. Pieces are added, never removed: the child's handler must not allocate.
struct Chunk {
    fds: [AtomicI32; CHUNK],
    next: AtomicPtr<Self>,
}

static FIRST: Chunk = Chunk::new();
static FROZEN: AtomicBool = AtomicBool::new(false);
static HINT: AtomicUsize = AtomicUsize::new(0);

impl Chunk {
    const fn new() -> Self {
        Self { fds: [const { AtomicI32::new(NONE) }; CHUNK], next: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Self> {
        // SAFETY: a non-null `next` came from a leaked box.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    fn grow(&self) -> &'static Self {
        let fresh = Box::into_raw(Box::new(Self::new()));
        match self.next.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just made, and leaked by standing in the list.
            Ok(_) => unsafe { &*fresh },
            Err(other) => {
                // SAFETY: it never got into the list; `other` did, and is never freed.
                unsafe {
                    drop(Box::from_raw(fresh));
                    &*other
                }
            }
        }
    }
}

/// Keeps forks and the opening of descriptors apart, so that no child has one that the table doesn't know.
pub(super) fn freeze() {
    while FROZEN.compare_exchange_weak(false, true, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        std::thread::yield_now();
    }
}

pub(super) fn thaw() {
    FROZEN.store(false, Ordering::Release);
}

pub(super) fn close_all() {
    let mut chunk = Some(&FIRST);
    while let Some(current) = chunk {
        for fd in &current.fds {
            let fd = fd.swap(NONE, Ordering::AcqRel);
            if fd != NONE {
                // SAFETY: this process's copy of a descriptor that only an `CloseOnFork` owns, which doesn't
                // close one of another epoch.
                unsafe { libc::close(fd) };
            }
        }
        chunk = current.next();
    }
}

/// Enters a descriptor into the table, and returns its line.
pub(super) fn enter(fd: i32) -> &'static AtomicI32 {
    let mut chunk = &FIRST;
    loop {
        let start = HINT.fetch_add(1, Ordering::Relaxed);
        for i in 0..CHUNK {
            let entry = &chunk.fds[(start + i) % CHUNK];
            if entry.compare_exchange(NONE, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return entry;
            }
        }
        chunk = match chunk.next() {
            Some(next) => next,
            None => chunk.grow(),
        };
    }
}
