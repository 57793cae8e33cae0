//! An open lock file, and the grant that its lock is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{self, FlockOperation, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::{self, Errno};

use super::File;
use super::directory::{Access, Directory};
use crate::clock::Instant;
use crate::contract::{Grant, Released};
use crate::error::Result;
use crate::runtime::BoxFuture;
use crate::runtime::close_on_fork::CloseOnFork;

/// The longest hold whose release doesn't check again that the file exists.
const BRIEF: Duration = Duration::from_millis(1);

/// An open lock file. It is empty and never removed: all processes must lock the same file.
#[derive(Debug)]
pub(super) struct LockFile {
    fd: CloseOnFork,
    inode: (u64, u64),
}

impl LockFile {
    /// Opens a lock file, or creates it.
    pub(super) fn open(path: &Path, access: Access) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = CloseOnFork::open(|| access.open(path, flags))?;
        let stat = fs::fstat(&fd)?;
        Ok(Self { fd, inode: (stat.st_dev, stat.st_ino) })
    }

    /// Returns the file's device and inode.
    pub(super) fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// Locks the file. Returns false if another process has locked it.
    pub(super) fn lock(&self) -> io::Result<bool> {
        loop {
            match fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Unlocks the file.
    fn unlock(&self) {
        // This can't fail on an open descriptor. Closing it would unlock the file too.
        let _ = fs::flock(&self.fd, FlockOperation::Unlock);
    }

    /// Returns true if the path still leads to this file.
    pub(super) fn is_current(&self, path: &str) -> bool {
        fs::stat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.inode)
    }

    /// Returns true if the file still has a name. It is cheaper than the path, and finds a removed or replaced file
    /// too.
    fn has_name(&self) -> bool {
        fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Sets the file's times, so that cleaners of old files keep it.
    fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // This fails if another user created the file.
        let _ = fs::futimens(&self.fd, &Timestamps { last_access: now, last_modification: now });
    }
}

/// Replaces the file at this path with a new, unlocked one.
pub(super) fn replace(path: &Path, access: Access) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}-{}", std::process::id(), Instant::now().nanos()));
    let file = access.make(Path::new(&fresh), OFlags::RDONLY | OFlags::CLOEXEC)?;
    let replaced = fs::rename(Path::new(&fresh), path);
    drop(file);
    if replaced.is_err() {
        let _ = fs::unlink(Path::new(&fresh));
    }
    replaced
}

/// A lock that a claim holds.
#[derive(Debug)]
pub(super) struct FileGrant {
    backend: Arc<File>,
    dir: Arc<Directory>,
    name: Arc<str>,
    fence: u64,
    since: Instant,
    file: Mutex<Option<LockFile>>,
}

impl FileGrant {
    pub(super) fn new(
        backend: Arc<File>,
        name: Arc<str>,
        file: LockFile,
        fence: u64,
        dir: Arc<Directory>,
        since: Instant,
    ) -> Self {
        Self { backend, dir, name, fence, since, file: Mutex::new(Some(file)) }
    }

    /// Sets the file's times. Returns false if it is not the lock file of that name any more.
    pub(super) fn touch(&self) -> bool {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
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
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(file) = file else { return Released::NotOurs };
        // It was checked at the grant. For a short hold another check would cost as much as the lock.
        let real = Instant::real();
        let now = real.as_now();
        let ours = now - self.since < BRIEF || file.has_name();
        file.unlock();
        // After unlocking: a process that writes the mark later than this read finds the lock free.
        if self.dir.counter().has_waiters(real) {
            // Closing the file wakes those who watch it.
            drop(file);
            self.backend.kept().recently_released.insert(&self.name, now);
        } else if ours {
            self.backend.keep(&self.name, file);
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
