//! An open lock file.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, FlockOperation, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::{self, Errno};

use super::access::Access;
use crate::clock::Instant;
use crate::runtime::close_on_fork::CloseOnFork;

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
    pub(super) fn unlock(&self) {
        // This can't fail on an open descriptor. Closing it would unlock the file too.
        let _ = fs::flock(&self.fd, FlockOperation::Unlock);
    }

    /// Returns true if the path still leads to this file.
    pub(super) fn is_current(&self, path: &str) -> bool {
        fs::stat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.inode)
    }

    /// Returns true if the file still has a name. It is cheaper than the path, and finds a removed or replaced file
    /// too.
    pub(super) fn has_name(&self) -> bool {
        fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Sets the file's times, so that cleaners of old files keep it.
    pub(super) fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // This fails if another user created the file.
        let _ = fs::futimens(&self.fd, &Timestamps { last_access: now, last_modification: now });
    }
}

/// The number of locks that this process has broken, in all directories.
static BREAKS: AtomicU64 = AtomicU64::new(0);

/// Returns the number of locks that this process has broken. While it stays the same, this process has replaced no file.
pub(super) fn breaks() -> u64 {
    BREAKS.load(Ordering::Acquire)
}

/// Replaces the file at this path with a new, unlocked one.
pub(super) fn replace(path: &Path, access: Access) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}-{}", std::process::id(), Instant::now().nanos()));
    let file = access.make(Path::new(&fresh), OFlags::RDONLY | OFlags::CLOEXEC)?;
    let replaced = fs::rename(Path::new(&fresh), path);
    BREAKS.fetch_add(1, Ordering::AcqRel);
    drop(file);
    if replaced.is_err() {
        let _ = fs::unlink(Path::new(&fresh));
    }
    replaced
}
