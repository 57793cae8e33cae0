//! A grant: its proof, its check and its release.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::directory::Directory;
use super::lock_file::{LockFile, breaks};
use super::open_files::OpenFiles;
use crate::clock::Instant;
use crate::contract::{Grant, Released};
use crate::error::Result;
use crate::runtime::{BoxFuture, lock};

/// The longest hold whose release doesn't check again that the file exists.
const BRIEF: Duration = Duration::from_millis(1);

/// A lock that a claim holds.
#[derive(Debug)]
pub(super) struct FileGrant {
    open_files: Arc<OpenFiles>,
    dir: Arc<Directory>,
    name: Arc<str>,
    fence: u64,
    since: Instant,
    /// The count of [`breaks`] before the file was checked.
    breaks: u64,
    file: Mutex<Option<LockFile>>,
}

impl FileGrant {
    pub(super) fn new(
        open_files: Arc<OpenFiles>,
        name: Arc<str>,
        file: LockFile,
        fence: u64,
        dir: Arc<Directory>,
        (since, breaks): (Instant, u64),
    ) -> Self {
        Self { open_files, dir, name, fence, since, breaks, file: Mutex::new(Some(file)) }
    }

    /// Sets the file's times. Returns false if it is not the lock file of that name any more.
    pub(super) fn touch(&self) -> bool {
        let file = lock(&self.file);
        file.as_ref().is_some_and(|file| {
            let current = file.is_current(&self.name);
            if current {
                file.touch();
            }
            current
        })
    }

    /// Releases the lock.
    fn unlock(&self) -> Released {
        let file = lock(&self.file).take();
        let Some(file) = file else { return Released::NotOurs };
        // It was checked at the grant. For a short hold another check would cost as much as the lock, and is made only if
        // this process has broken a lock in the meantime.
        let real = Instant::real();
        let now = real.as_now();
        let ours = (now - self.since < BRIEF && self.breaks == breaks()) || file.has_name();
        file.unlock();
        // After unlocking: a process that writes the mark later than this read finds the lock free.
        if self.dir.counter().has_waiters(real) {
            // Closing the file wakes those who watch it.
            drop(file);
            self.open_files.released(&self.name, now);
        } else if ours {
            self.open_files.keep(&self.name, file);
        }
        if ours { Released::Yes } else { Released::NotOurs }
    }
}

impl Grant for FileGrant {
    fn fences(&self) -> Option<std::ops::Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        let answer = self.unlock();
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn release_now(&self) -> Option<Released> {
        Some(self.unlock())
    }
}
