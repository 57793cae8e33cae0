//! One lock file, open, and the grant that its lock is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{self, FlockOperation, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::{self, Errno};

use super::File;
use super::directory::{Access, Dir};
use crate::clock::Instant;
use crate::contract::{Grant, Released};
use crate::error::Result;
use crate::runtime::BoxFuture;
use crate::runtime::close_on_fork::CloseOnFork;

/// The longest hold whose end doesn't look once more whether the file is still there.
const BRIEF: Duration = Duration::from_millis(1);

/// An open lock file. Empty, and never removed: who locks it and who opens it must mean the same file.
#[derive(Debug)]
pub(super) struct LockFile {
    fd: CloseOnFork,
    inode: (u64, u64),
}

impl LockFile {
    /// Opens it, and makes it if it isn't there.
    pub(super) fn open(path: &Path, access: Access) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = CloseOnFork::open(|| access.open(path, flags))?;
        let stat = fs::fstat(&fd)?;
        Ok(Self { fd, inode: (stat.st_dev, stat.st_ino) })
    }

    /// Which file it is, whatever its path leads to.
    pub(super) fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// Locks it, if nobody else has.
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

    fn unlock(&self) {
        // Can't fail on a descriptor of ours; were it to, closing it unlocks it.
        let _ = fs::flock(&self.fd, FlockOperation::Unlock);
    }

    /// Whether the path still leads here.
    pub(super) fn is_current(&self, path: &str) -> bool {
        fs::stat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.inode)
    }

    /// Whether the file still has a name: cheaper than looking it up, and enough to find it removed or replaced.
    fn has_name(&self) -> bool {
        fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Sets its times, so that what cleans old files leaves it alone.
    fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // Not ours to touch where another user made it.
        let _ = fs::futimens(&self.fd, &Timestamps { last_access: now, last_modification: now });
    }
}

/// Puts a new, unlocked file in the place of the one at this path.
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

/// A lock file that we have locked.
#[derive(Debug)]
pub(super) struct Held {
    backend: Arc<File>,
    dir: Arc<Dir>,
    name: Arc<str>,
    fence: u64,
    since: Instant,
    file: Mutex<Option<LockFile>>,
}

impl Held {
    pub(super) fn new(
        backend: Arc<File>,
        name: Arc<str>,
        file: LockFile,
        fence: u64,
        dir: Arc<Dir>,
        since: Instant,
    ) -> Self {
        Self { backend, dir, name, fence, since, file: Mutex::new(Some(file)) }
    }

    /// Whether it is still the lock of that name.
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

    fn give(&self) -> Released {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(file) = file else { return Released::NotOurs };
        // Looked up when it was locked: not again for a hold of a moment, where it would cost as much as the lock.
        let real = Instant::real();
        let now = real.as_now();
        let ours = now - self.since < BRIEF || file.has_name();
        file.unlock();
        // After unlocking: who announces itself later than this look finds the lock free.
        if self.dir.counter().awaited(real) {
            // Closing is what wakes those who watch the file.
            drop(file);
            self.backend.kept().given.insert(&self.name, now);
        } else if ours {
            self.backend.keep(&self.name, file);
        }
        if ours { Released::Yes } else { Released::NotOurs }
    }
}

impl Grant for Held {
    fn fences(&self) -> Option<std::ops::Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        let answer = self.give();
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn release_now(&self) -> Option<Released> {
        Some(self.give())
    }
}
