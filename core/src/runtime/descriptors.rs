//! Descriptors that a child of fork must not share: an inherited flock keeps a dead parent's lock alive, and *succeeds*
//! beside a live one; an inherited socket keeps a dead parent's connection open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};

const NONE: i32 = -1;
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
                // SAFETY: this process's copy of a descriptor that only an `Unshared` owns, which doesn't
                // close one of another epoch.
                unsafe { libc::close(fd) };
            }
        }
        chunk = current.next();
    }
}

/// A descriptor, or what owns one, that a child of fork doesn't get.
#[derive(Debug)]
pub(crate) struct Unshared<T = OwnedFd> {
    owner: Option<T>,
    /// Its line in the table.
    line: &'static AtomicI32,
    epoch: u32,
}

impl<T: AsRawFd> Unshared<T> {
    /// Opens a descriptor and enters it into the table, or closes it again where a later step fails, with no fork in
    /// between: a line of the table is never left for a number that is somebody else's by then. Must not block.
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        super::watch_forks();
        freeze();
        let made = open().map(|owner| {
            let line = enter(owner.as_raw_fd());
            Self { owner: Some(owner), line, epoch: super::epoch() }
        });
        thaw();
        made
    }
}

impl<T> Unshared<T> {
    pub(crate) fn owner(&mut self) -> &mut T {
        self.owner.as_mut().expect("present until dropped")
    }
}

/// The descriptor as one that the runtime tells of when it can be read. Within the runtime's context.
#[cfg(target_os = "linux")]
pub(crate) fn readable(fd: Arc<Unshared>) -> std::io::Result<AsyncFd<Arc<Unshared>>> {
    // SAFETY: an `Unshared` keeps its one descriptor open until it is dropped, and the `AsyncFd` owns a count of it.
    // In a child of fork it is closed, but there this runtime doesn't run.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

impl AsFd for Unshared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owner.as_ref().expect("present until dropped").as_fd()
    }
}

impl AsRawFd for Unshared {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl<T> Drop for Unshared<T> {
    fn drop(&mut self) {
        let owner = self.owner.take();
        if self.epoch == super::epoch() {
            freeze();
            self.line.store(NONE, Ordering::Release);
            drop(owner);
            thaw();
        } else {
            // The child's handler has closed it, and the number may be somebody else's by now.
            std::mem::forget(owner);
        }
    }
}

fn enter(fd: i32) -> &'static AtomicI32 {
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
