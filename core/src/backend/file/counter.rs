//! The fences of a directory, and the mark that a process waits in it: the file `.fence`. Every process reads it and
//! none maps it, so a program that truncates or replaces it breaks no process.
//!
//! A fence is the boot-time clock, which never goes back, plus a base that the file holds. A process reads the file no
//! less often than every `LOOK` while it grants. It grants nothing with a base that it sees for the first time before
//! all other processes have read the file again. So whatever happens to the file, a later grant has a greater fence.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustix::fs::{self, FileType, FlockOperation, OFlags};
use rustix::io::{self, Errno};

use super::access::Access;
use super::error;
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::runtime::close_on_fork::CloseOnFork;
use crate::runtime::lock;

const NAME: &str = ".fence";

/// The age up to which a read of the file is good for a fence.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// The time for which a process counts as waiting after it last wrote the mark.
const WAITING: Duration = Duration::from_millis(200);
/// The time after which all processes have seen a base: `LOOK`, and the time for which a writer may be delayed.
const KNOWN: Duration = Duration::from_secs(1);
/// The time by which the mark of the fences is ahead: it is written no more often.
const AHEAD: Duration = Duration::from_secs(1);
/// The time for which another writer may lock the file.
const PATIENCE: Duration = Duration::from_millis(100);
/// The number of reads, or of waits for a new base, for one fence.
const ROUNDS: u32 = 64;
/// The limit of a base and a mark. A fence fits a signed number of 64 bits; dlock writes nothing above half of that.
const LIMIT: u64 = u64::MAX >> 2;

/// The counter of one directory.
#[derive(Debug)]
pub(super) struct Counter {
    path: PathBuf,
    access: Access,
    boot: u128,
    /// True if the clock may show one time at two grants.
    coarse: bool,
    seen: ArcSwap<Seen>,
    looking: Mutex<()>,
    /// The time when this process last wrote that it waits.
    marked_at: AtomicU64,
}

/// The last read of the file.
#[derive(Clone, Debug)]
struct Seen {
    file: Arc<OwnedFd>,
    inode: (u64, u64),
    base: u64,
    /// The time from which this process may use the base.
    from: Instant,
    /// The time until which a process waits.
    waited_until: Instant,
    /// The time of the read.
    at: Instant,
}

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    boot: u128,
    base: u64,
    /// The time when the base was written.
    since: u64,
    /// The mark up to which fences were given. They continue above it after the next boot.
    mark: u64,
    /// The time until which a process waits.
    waited_until: u64,
}

const SIZE: usize = 64;
const MAGIC: &[u8; 8] = b"dlock 2\n";
const WAITED_AT: u64 = 56;

impl Stored {
    /// Reads the content. `None`: cut off, or written by another program.
    fn parse(bytes: &[u8; SIZE]) -> Option<Self> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let intact = bytes.starts_with(MAGIC) && number(48) == checksum(&bytes[..48]);
        let boot = u128::from_le_bytes(std::array::from_fn(|n| bytes[8 + n]));
        let stored = Self { boot, base: number(24), since: number(32), mark: number(40), waited_until: number(56) };
        (intact && stored.base < LIMIT && stored.mark < LIMIT).then_some(stored)
    }

    /// The length without the mark of waiting, which is written on its own.
    const LENGTH: usize = 56;

    /// Returns the content without the mark of waiting.
    fn bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.boot.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.since.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.mark.to_le_bytes());
        let sum = checksum(&bytes[..48]);
        bytes[48..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a file.
    fn read(file: &OwnedFd) -> io::Result<Option<Self>> {
        let mut bytes = [0; SIZE];
        let read = io::pread(file, &mut bytes, 0)?;
        // The mark of waiting is missing until a process has waited.
        Ok((read >= Self::LENGTH).then(|| Self::parse(&bytes)).flatten())
    }
}

/// Returns FNV-1a, which finds a file that was read while it was written.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Counter {
    /// Opens the counter of a directory, or creates it. Its base is no less than that of `before`.
    pub(super) fn open(dir: &Path, access: Access, before: Option<&Self>) -> Result<Self> {
        let (path, boot) = (dir.join(NAME), boot());
        let known = before.map_or(0, |before| before.seen.load().base);
        let seen = join(&path, access, boot, known, PATIENCE)?;
        let (seen, looking, marked_at) = (ArcSwap::from_pointee(seen), Mutex::default(), AtomicU64::new(0));
        Ok(Self { path, access, boot, coarse: is_coarse(), seen, looking, marked_at })
    }

    /// Returns the next fence, and the time from which it counts. The caller has locked its lock file before.
    pub(super) fn next_fence(&self) -> Result<(u64, Instant)> {
        let locked = Instant::real();
        let mut now = locked;
        // Not in the clock tick of the lock: another process may have granted in the same tick.
        while self.coarse && now == locked {
            std::hint::spin_loop();
            now = Instant::real();
        }
        let mut rounds = 0;
        loop {
            let seen = self.seen.load();
            if now >= seen.from && now - seen.at <= LOOK || mutant!("file-counter-not-looked-at") {
                return Ok((seen.base.saturating_add(now.nanos()), locked.as_now()));
            }
            rounds += 1;
            if rounds > ROUNDS {
                let path = &self.path;
                return Err(Error::unavailable(format!(
                    "the fence counter {path:?} is changed again and again: end the program that writes it"
                )));
            }
            if now < seen.from {
                std::thread::sleep(seen.from - now);
            } else {
                drop(seen);
                self.look()?;
            }
            now = Instant::real();
        }
    }

    /// Returns true if a process may be waiting in the directory, from a read no older than `LOOK`.
    pub(super) fn has_waiters(&self, now: Instant) -> bool {
        let seen = self.seen.load();
        let is_ahead = |until: Instant| {
            // A mark far ahead is from before a reboot, or not dlock's.
            let left = until - now;
            !left.is_zero() && left <= WAITING + LOOK
        };
        // If the file can't be read, there may be waiters.
        is_ahead(seen.waited_until)
            || now - seen.at > LOOK && self.look().map_or(true, |seen| is_ahead(seen.waited_until))
    }

    /// Writes the mark that this process waits for a lock of the directory, for a short time. Returns true if every
    /// holder knows it by now.
    pub(super) fn mark_waiting(&self) -> Result<bool> {
        let now = Instant::real();
        let age = now - Instant::from_nanos(self.marked_at.load(Ordering::Acquire));
        if age < WAITING / 2 {
            return Ok(age > LOOK);
        }
        // Opened by name: the number of a kept descriptor may belong to another file by now.
        let fail = |errno| failed(&self.path, errno);
        let (file, _) = open(&self.path, self.access).map_err(fail)?;
        io::pwrite(&file, &now.plus(WAITING).nanos().to_le_bytes(), WAITED_AT).map_err(fail)?;
        self.marked_at.fetch_max(Instant::real().nanos(), Ordering::AcqRel);
        Ok(false)
    }

    /// Reads the file again, and repairs it: a process that has granted with a greater base writes its base.
    pub(super) fn check(&self) -> Result<()> {
        self.look().map(drop)
    }

    /// Reads the file again, unless that was done just now.
    fn look(&self) -> Result<Arc<Seen>> {
        let _one = lock(&self.looking);
        let (at, seen) = (Instant::real(), self.seen.load_full());
        if at - seen.at <= LOOK / 2 {
            return Ok(seen);
        }
        let current = fs::stat(&self.path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == seen.inode);
        let stored = if current { Stored::read(&seen.file).unwrap_or(None) } else { None };
        let seen = match stored.filter(|stored| stored.boot == self.boot && stored.base == seen.base) {
            Some(stored) => {
                let seen = Seen { waited_until: Instant::from_nanos(stored.waited_until), at, ..Seen::clone(&seen) };
                if seen.base.saturating_add(at.nanos()) <= stored.mark {
                    seen
                } else {
                    // The mark only matters after the next boot, so this doesn't wait for another writer.
                    join(&self.path, self.access, self.boot, seen.base, Duration::ZERO).unwrap_or(seen)
                }
            }
            None => {
                let known = if mutant!("file-counter-forgotten") { 0 } else { seen.base };
                join(&self.path, self.access, self.boot, known, PATIENCE)?
            }
        };
        let seen = Arc::new(seen);
        self.seen.store(seen.clone());
        Ok(seen)
    }
}

/// Returns the error of a system call on the file.
fn failed(path: &Path, errno: Errno) -> Error {
    error::of(errno, "use the fence counter", &path.display().to_string())
}

/// Opens the file, or creates it. Not both in one call: in a directory that all may write, the kernel refuses to open
/// the file of another user with the flag to create it.
fn open(path: &Path, access: Access) -> io::Result<(OwnedFd, (u64, u64))> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = access.open(path, flags)?;
    let stat = fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((file, (stat.st_dev, stat.st_ino)))
}

/// Agrees with all processes on the base: the greater of the file's and this process's.
fn join(path: &Path, access: Access, boot: u128, known: u64, patience: Duration) -> Result<Seen> {
    let fail = |errno| failed(path, errno);
    let end = Instant::real().plus(patience);
    loop {
        let at = Instant::real();
        let mut inode = (0, 0);
        let writer = CloseOnFork::open(|| {
            open(path, access).map(|(file, number)| {
                inode = number;
                file
            })
        });
        let writer = writer.map_err(fail)?;
        // Closing it ends the file lock. The descriptor that is kept is never locked, so a child of fork may have it.
        let kept = match fs::flock(&writer, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Some(open(path, access).map_err(fail)?).filter(|(_, number)| *number == inode),
            Err(Errno::WOULDBLOCK | Errno::INTR) => None,
            Err(errno) => return Err(fail(errno)),
        };
        let Some((file, _)) = kept else {
            if Instant::real() >= end {
                return Err(Error::unavailable(format!(
                    "the fence counter {path:?} was locked or replaced by somebody all the time for {PATIENCE:?}: end the \
                     program that does it"
                )));
            }
            drop(writer);
            std::thread::sleep(Duration::from_micros(fastrand::u64(50..=500)));
            continue;
        };
        let stored = Stored::read(&file).map_err(fail)?;
        let agreed = agree(stored, boot, known, Instant::real());
        if stored != Some(agreed) {
            io::pwrite(&file, &agreed.bytes(), 0).map_err(fail)?;
        }
        drop(writer);
        // A process that has read another base before this moment grants with it for no longer than `LOOK`.
        let now = Instant::real();
        let changed = agreed.base != known || stored.is_none_or(|stored| stored.base != agreed.base);
        let fresh = changed && now - Instant::from_nanos(agreed.since) < KNOWN;
        let from = if fresh { now.plus(LOOK) } else { Instant::START };
        let waited_until = Instant::from_nanos(agreed.waited_until);
        return Ok(Seen { file: Arc::new(file), inode, base: agreed.base, from, waited_until, at });
    }
}

/// Returns the content that the file is to have.
fn agree(stored: Option<Stored>, boot: u128, known: u64, now: Instant) -> Stored {
    let nanos = now.nanos();
    let same = stored.filter(|stored| {
        // Without a number of the boot, a clock that started again shows a reboot.
        stored.boot == boot && (boot != 0 || stored.base.saturating_add((now.plus(AHEAD * 2)).nanos()) >= stored.mark)
    });
    let base = match (same, stored) {
        (Some(same), _) => same.base.max(known),
        (None, Some(before)) => offset().max(known).max((before.mark + 1).saturating_sub(nanos)),
        (None, None) => offset().max(known),
    };
    let mut agreed = match same {
        Some(same) if same.base == base => same,
        _ => Stored { boot, base, since: nanos, mark: 0, waited_until: stored.map_or(0, |stored| stored.waited_until) },
    };
    if base.saturating_add(nanos) > agreed.mark {
        agreed.mark = base.saturating_add(now.plus(AHEAD).nanos());
    }
    agreed
}

/// Returns the time by which the wall clock is ahead of the boot-time clock.
fn offset() -> u64 {
    let mut offset = 0;
    for _ in 0..16 {
        let before = Instant::real();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(0);
        offset = wall.saturating_sub(before.nanos()).min(LIMIT - 1);
        if Instant::real() - before < Duration::from_micros(10) {
            break;
        }
    }
    offset
}

/// Returns true if the clock's ticks are longer than the system calls between two grants.
fn is_coarse() -> bool {
    #[cfg(target_os = "linux")]
    {
        let tick = rustix::time::clock_getres(rustix::time::ClockId::Boottime);
        tick.tv_sec != 0 || tick.tv_nsec > 50
    }
    #[cfg(not(target_os = "linux"))]
    {
        true
    }
}

/// Returns the number of this boot, or 0 if there is none.
fn boot() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}
