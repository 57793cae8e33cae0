//! Descriptors that a child of fork must not share: an inherited flock keeps a dead parent's lock alive, and *succeeds*
//! beside a live one; an inherited socket keeps a dead parent's connection open.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::fd_table::{NONE, enter, freeze, thaw};
use super::fork::{epoch, watch_forks};
#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor, or what owns one, that a child of fork doesn't get.
#[derive(Debug)]
pub(crate) struct CloseOnFork<T = OwnedFd> {
    owner: Option<T>,
    /// Its line in the table.
    line: &'static AtomicI32,
    epoch: u32,
}

impl<T: AsRawFd> CloseOnFork<T> {
    /// Opens a descriptor and enters it into the table, or closes it again where a later step fails, with no fork in
    /// between: a line of the table is never left for a number that is somebody else's by then. Must not block.
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        watch_forks();
        freeze();
        let made = open().map(|owner| {
            let line = enter(owner.as_raw_fd());
            Self { owner: Some(owner), line, epoch: epoch() }
        });
        thaw();
        made
    }
}

impl<T> CloseOnFork<T> {
    pub(crate) fn owner(&mut self) -> &mut T {
        self.owner.as_mut().expect("present until dropped")
    }
}

/// The descriptor as one that the runtime tells of when it can be read. Within the runtime's context.
#[cfg(target_os = "linux")]
pub(crate) fn readable(fd: Arc<CloseOnFork>) -> std::io::Result<AsyncFd<Arc<CloseOnFork>>> {
    // SAFETY: an `CloseOnFork` keeps its one descriptor open until it is dropped, and the `AsyncFd` owns a count of it.
    // In a child of fork it is closed, but there this runtime doesn't run.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

impl AsFd for CloseOnFork {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.owner.as_ref().expect("present until dropped").as_fd()
    }
}

impl AsRawFd for CloseOnFork {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl<T> Drop for CloseOnFork<T> {
    fn drop(&mut self) {
        let owner = self.owner.take();
        if self.epoch == epoch() {
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
