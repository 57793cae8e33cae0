//! The directory: where it is, whether it can be trusted, and the counter that all of its locks draw fences from.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error;
use super::sys::{Mapped, SIZE};
use crate::clock::Instant;
use crate::error::{Error, Result};

const COUNTER: &str = ".fence";

/// How long others are taken to wait after they last said so.
const WAITING: Duration = Duration::from_millis(200);

/// An open lock directory.
#[derive(Debug)]
pub(super) struct Dir {
    mode: Mode,
    counter: PathBuf,
    inode: (u64, u64),
    /// The last fence, and until when somebody waits here, in nanoseconds of the boot-time clock.
    shared: Mapped,
}

/// The platform's own place for this user's locks: a constant, never chosen by what happens to be writable.
pub(super) fn default_path() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let run = Path::new("/run/lock");
    let usable = cfg!(target_os = "linux")
        && fs::stat(run)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir() && stat.st_mode & 0o7777 == 0o1777);
    let parent = if usable { run } else { Path::new("/var/tmp") };
    parent.join(format!("dlock-{user}"))
}

impl Dir {
    /// Opens it, and makes it if it isn't there. `own`: it must belong to this user alone.
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
            return Err(Error::backend(format!(
                "the lock directory {shown:?} {trouble}: remove it, or name another by DLOCK_FILE_DIR"
            )));
        }
        if !force {
            refuse_network(path, &shown)?;
        }
        let mode = Mode::from_raw_mode(stat.st_mode & 0o666);
        let counter = path.join(COUNTER);
        let (shared, inode) = open_counter(&counter, mode, before)?;
        Ok(Self { mode, counter, inode, shared })
    }

    /// Who may use the directory may use its files.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// The next fence.
    pub(super) fn step(&self) -> u64 {
        self.shared.get()[0].fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Says to all processes that this one waits for a lock of the directory, for a little while.
    pub(super) fn announce(&self) {
        self.shared.get()[1].fetch_max(Instant::now().plus(WAITING).nanos(), Ordering::SeqCst);
    }

    /// Whether somebody may be waiting here. A mark far ahead is of before a restart.
    pub(super) fn awaited(&self, now: Instant) -> bool {
        let until = self.shared.get()[1].load(Ordering::SeqCst);
        if until == 0 {
            return false;
        }
        let left = Instant::from_nanos(until) - now;
        if left > WAITING {
            self.shared.get()[1].store(0, Ordering::SeqCst);
        }
        !left.is_zero() && left <= WAITING
    }

    /// Whether the counter we map is still the directory's.
    pub(super) fn counter_is_current(&self) -> bool {
        fs::stat(&self.counter).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.inode)
    }
}

/// Opens the counter, and makes it no less than the one it replaces and than the time in microseconds, so that fences go
/// on increasing when the directory was emptied.
fn open_counter(path: &Path, mode: Mode, before: Option<&Dir>) -> Result<(Mapped, (u64, u64))> {
    let shown = path.display().to_string();
    let fail = |errno| error::of(errno, "use the fence counter", &shown);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = fs::open(path, flags, mode).map_err(fail)?;
    let stat = fs::fstat(&file).map_err(fail)?;
    if stat.st_size == 0 && stat.st_mode & 0o777 != mode.as_raw_mode() {
        fs::fchmod(&file, mode).map_err(fail)?;
    }
    if usize::try_from(stat.st_size).unwrap_or(0) < SIZE {
        // Space is taken here, so that a full disk is an error and not a signal at the first grant. Neither call
        // changes what others have written meanwhile.
        match fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE as u64) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fs::ftruncate(&file, SIZE as u64),
            allocated => allocated,
        }
        .map_err(fail)?;
    }
    let mapped = Mapped::new(&file).map_err(fail)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let floor = u64::try_from(now.as_micros()).unwrap_or(0);
    let last = before.map_or(0, |before| before.shared.get()[0].load(Ordering::Acquire));
    mapped.get()[0].fetch_max(floor.max(last), Ordering::AcqRel);
    Ok((mapped, (stat.st_dev, stat.st_ino)))
}

#[cfg(target_os = "linux")]
fn refuse_network(path: &Path, shown: &str) -> Result<()> {
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
    match NETWORK.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => Err(Error::new(
            crate::error::Kind::Unsupported,
            format!(
                "the lock directory {shown:?} is on {name}, where flock doesn't reach other hosts reliably: name a \
                 local directory, use a network backend, or force it with ?force=true"
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_: &Path, _: &str) -> Result<()> {
    Ok(())
}
