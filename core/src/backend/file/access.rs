//! The permissions of the files in a lock directory.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, Gid, Mode, OFlags, Stat};
use rustix::io::{self, Errno};

/// The permissions of the directory's files: the same as those of the directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    mode: Mode,
    group: Gid,
}

impl Access {
    /// Returns the permissions for the files of a directory.
    pub(super) fn of_directory(stat: &Stat) -> Self {
        Self { mode: Mode::from_raw_mode(stat.st_mode & 0o666), group: Gid::from_raw(stat.st_gid) }
    }

    /// Opens a file, or creates it.
    pub(super) fn open(self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        loop {
            match fs::open(path, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                opened => return opened,
            }
            match self.make(path, flags) {
                Err(Errno::EXIST) => {}
                made => return made,
            }
        }
    }

    /// Creates a file, whatever the umask is.
    pub(super) fn make(self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let made = fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, self.mode)?;
        if fs::fstat(&made)?.st_gid != self.group.as_raw() {
            // The kernel refuses it to users outside the group. Then the permissions for others count.
            let _ = fs::fchown(&made, None, Some(self.group));
        }
        fs::fchmod(&made, self.mode)?;
        Ok(made)
    }
}
