//! The lock directory: its place, the checks whether it can be trusted, and the permissions of its files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;

use super::access::Access;
use super::counter::{Counter, LOOK};
use super::error;
use crate::clock::Instant;
use crate::error::{Error, Result};

/// An open lock directory.
#[derive(Debug)]
pub(super) struct Directory {
    access: Access,
    counter: Counter,
    inode: (u64, u64),
    /// The time when it was last seen at its path.
    seen: AtomicU64,
}

/// Returns the platform's directory for this user's locks: a constant, never chosen by which directory is writable.
pub(super) fn default_path() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let run = Path::new("/run/lock");
    let usable = cfg!(target_os = "linux")
        && fs::stat(run)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir() && stat.st_mode & 0o7777 == 0o1777);
    let parent = if usable { run } else { Path::new("/var/tmp") };
    parent.join(format!("dlock-{user}"))
}

impl Directory {
    /// Opens the directory, or creates it. `own`: it must belong to this user alone.
    pub(super) fn open(path: &Path, own: bool, force: bool, before: Option<&Self>) -> Result<Self> {
        let shown = path.display().to_string();
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(error::of(errno, "create the lock directory", &shown)),
        }
        let follow = if own { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
        let stat =
            fs::statat(CWD, path, follow).map_err(|errno| error::of(errno, "look at the lock directory", &shown))?;
        let trouble = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Some("is a symbolic link, which could point anywhere".to_owned()),
            FileType::Directory if !own => None,
            FileType::Directory if stat.st_uid != rustix::process::geteuid().as_raw() => {
                Some(format!("belongs to user {}, not to user {}", stat.st_uid, rustix::process::geteuid().as_raw()))
            }
            FileType::Directory if stat.st_mode & 0o022 != 0 => {
                Some(format!("may be written by others (mode {:o})", stat.st_mode & 0o7777))
            }
            FileType::Directory => None,
            _ => Some("is not a directory".to_owned()),
        };
        if let Some(trouble) = trouble {
            return Err(Error::refused(format!(
                "the lock directory {shown:?} {trouble}: remove it, or name another by DLOCK_FILE_DIR"
            )));
        }
        if !force {
            refuse_network(path, &shown)?;
        }
        let access = Access::of_directory(&stat);
        let counter = Counter::open(path, access, before.map(Self::counter))?;
        let seen = AtomicU64::new(Instant::now().nanos());
        Ok(Self { access, counter, inode: (stat.st_dev, stat.st_ino), seen })
    }

    /// Returns true if the path still leads to this directory, as known no longer than `LOOK` ago.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        let now = Instant::now();
        if now - Instant::from_nanos(self.seen.load(Ordering::Acquire)) <= LOOK {
            return true;
        }
        let current = fs::stat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.inode);
        if current {
            self.seen.store(now.nanos(), Ordering::Release);
        }
        current
    }

    /// Returns the permissions of its files.
    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// Returns its counter.
    pub(super) fn counter(&self) -> &Counter {
        &self.counter
    }
}

/// Refuses a network file system.
fn refuse_network(path: &Path, shown: &str) -> Result<()> {
    match network(path, shown)? {
        Some(name) => Err(Error::new(
            crate::error::Kind::Unsupported,
            format!(
                "the lock directory {shown:?} is on {name}, where flock doesn't reach other hosts reliably: name a \
                 local directory, use a network backend, or force it with ?force=true"
            ),
        )),
        None => Ok(()),
    }
}

/// Returns the network file system that a path is on; `None`: a local one.
#[cfg(target_os = "linux")]
pub(super) fn network(path: &Path, shown: &str) -> Result<Option<&'static str>> {
    const NETWORK: &[(u32, &str)] = &[
        (0x6969, "NFS"),
        (0x517B, "SMB"),
        (0xFE53_4D42, "SMB2"),
        (0xFF53_4D42, "CIFS"),
        (0x0102_1997, "9P"),
        (0x00C3_6400, "Ceph"),
        (0x0BD0_0BD0, "Lustre"),
        (0x0116_1970, "GFS2"),
        (0x7461_636F, "OCFS2"),
        (0x5346_414F, "AFS"),
        (0x1983_0326, "BeeGFS"),
        (0x6A65_6A63, "virtiofs"),
        (0x6573_5546, "FUSE"),
    ];
    let stat = fs::statfs(path).map_err(|errno| error::of(errno, "look at the file system of", shown))?;
    // The field's type differs by platform; its meaning is 32 bits.
    let kind = stat.f_type as u32;
    Ok(NETWORK.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn network(_: &Path, _: &str) -> Result<Option<&'static str>> {
    Ok(None)
}
