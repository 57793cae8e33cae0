//! The fences of a directory, and whether somebody waits in it: the file `.fence`, which every process reads and no one
//! maps, so that whoever truncates or replaces it breaks no process.
//!
//! A fence is the boot-time clock, which never goes back, plus a base that the file holds. A process reads the file no
//! less often than every `LOOK` while it grants, and grants nothing by a base that it sees for the first time before all
//! others have had to look again. So whatever becomes of the file, a later grant has a greater fence.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustix::fs::{self, FileType, FlockOperation, OFlags};
use rustix::io::{self, Errno};

use super::directory::Access;
use super::error;
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::runtime::close_on_fork::CloseOnFork;
use crate::runtime::lock;

const NAME: &str = ".fence";

/// How old what was read may be when a fence is made from it.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// How long others are taken to wait after they last wrote so.
const WAITING: Duration = Duration::from_millis(200);
/// How long ago a base was written that all others have seen: `LOOK`, and how long a writer may be kept from writing.
const KNOWN: Duration = Duration::from_secs(1);
/// How far ahead the mark is set: it is written no more often.
const AHEAD: Duration = Duration::from_secs(1);
/// How long the file may be locked by another writer.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often a look, or the wait for a new base, may have to be begun anew for one fence.
const ROUNDS: u32 = 64;
/// A fence fits a signed number of 64 bits; what is above half of that has been written by nobody of us.
const LIMIT: u64 = u64::MAX >> 2;

/// The counter of one directory.
#[derive(Debug)]
pub(super) struct Counter {
    path: PathBuf,
    access: Access,
    boot: u128,
    seen: ArcSwap<Seen>,
    looking: Mutex<()>,
    /// When this process last wrote that it waits.
    announced: AtomicU64,
}

/// What was last read.
#[derive(Clone, Debug)]
struct Seen {
    file: Arc<OwnedFd>,
    inode: (u64, u64),
    base: u64,
    /// From when on this process may use the base.
    from: Instant,
    /// Until when somebody waits.
    awaited: Instant,
    /// When this was asked for.
    at: Instant,
}

/// What the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    boot: u128,
    base: u64,
    /// When the base was written.
    since: u64,
    /// Fences were given up to about here: they go on above it after the next boot.
    mark: u64,
    awaited: u64,
}

const SIZE: usize = 64;
const MAGIC: &[u8; 8] = b"dlock 2\n";
const AWAITED: u64 = 56;

impl Stored {
    /// `None`: cut off, or written by somebody else.
    fn parse(bytes: &[u8; SIZE]) -> Option<Self> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let intact = bytes.starts_with(MAGIC) && number(48) == checksum(&bytes[..48]);
        let boot = u128::from_le_bytes(std::array::from_fn(|n| bytes[8 + n]));
        let stored = Self { boot, base: number(24), since: number(32), mark: number(40), awaited: number(56) };
        (intact && stored.base < LIMIT && stored.mark < LIMIT).then_some(stored)
    }

    /// All but who waits, which has its own place and time.
    const LENGTH: usize = 56;

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

    fn read(file: &OwnedFd) -> io::Result<Option<Self>> {
        let mut bytes = [0; SIZE];
        let read = io::pread(file, &mut bytes, 0)?;
        // What is missing there is who waits, when nobody has waited yet.
        Ok((read >= Self::LENGTH).then(|| Self::parse(&bytes)).flatten())
    }
}

/// FNV-1a: it finds a file that was read while it was written.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Counter {
    /// Opens the counter of a directory, and makes it if it isn't there; above all that `before` has known.
    pub(super) fn open(dir: &Path, access: Access, before: Option<&Self>) -> Result<Self> {
        let (path, boot) = (dir.join(NAME), boot());
        let known = before.map_or(0, |before| before.seen.load().base);
        let seen = join(&path, access, boot, known, PATIENCE)?;
        let (seen, looking, announced) = (ArcSwap::from_pointee(seen), Mutex::default(), AtomicU64::new(0));
        Ok(Self { path, access, boot, seen, looking, announced })
    }

    /// The next fence, and the time from which it counts. The caller has locked its lock file before.
    pub(super) fn step(&self) -> Result<(u64, Instant)> {
        let locked = Instant::real();
        let mut rounds = 0;
        loop {
            let now = Instant::real();
            // Not the tick in which the lock was had, where a clock is so coarse that another's grant may be in it.
            if now == locked {
                std::hint::spin_loop();
                continue;
            }
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
        }
    }

    /// Whether somebody may be waiting here, as known no later than `LOOK` ago.
    pub(super) fn awaited(&self, now: Instant) -> bool {
        let seen = self.seen.load();
        let awaited = |until: Instant| {
            // A mark far ahead is of before a restart, or of nobody.
            let left = until - now;
            !left.is_zero() && left <= WAITING + LOOK
        };
        // Who can't look wakes whoever there may be.
        awaited(seen.awaited) || now - seen.at > LOOK && self.look().map_or(true, |seen| awaited(seen.awaited))
    }

    /// Writes for all processes that this one waits for a lock of the directory, for a little while. Whether all that
    /// hold one know it by now.
    pub(super) fn announce(&self) -> Result<bool> {
        let now = Instant::real();
        let age = now - Instant::from_nanos(self.announced.load(Ordering::Acquire));
        if age < WAITING / 2 {
            return Ok(age > LOOK);
        }
        // Opened by its name: the number of a descriptor that was kept may be somebody else's by now.
        let fail = |errno| failed(&self.path, errno);
        let (file, _) = open(&self.path, self.access).map_err(fail)?;
        io::pwrite(&file, &now.plus(WAITING).nanos().to_le_bytes(), AWAITED).map_err(fail)?;
        self.announced.fetch_max(Instant::real().nanos(), Ordering::AcqRel);
        Ok(false)
    }

    /// Reads the file anew, and mends it: whoever has granted before others made it anew lifts it above that.
    pub(super) fn check(&self) -> Result<()> {
        self.look().map(drop)
    }

    /// Reads the file anew, unless that was done just now.
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
                let seen = Seen { awaited: Instant::from_nanos(stored.awaited), at, ..Seen::clone(&seen) };
                if seen.base.saturating_add(at.nanos()) <= stored.mark {
                    seen
                } else {
                    // It only matters after the next boot: not worth waiting for another who writes.
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

fn failed(path: &Path, errno: Errno) -> Error {
    error::of(errno, "use the fence counter", &path.display().to_string())
}

/// Opens the file, and makes it if it isn't there. Not both at once: where everybody may write, opening another's file as
/// one to be made is refused.
fn open(path: &Path, access: Access) -> io::Result<(OwnedFd, (u64, u64))> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = access.open(path, flags)?;
    let stat = fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((file, (stat.st_dev, stat.st_ino)))
}

/// Agrees with all others on the base: the greater of theirs and what this process knows.
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
        // Closing it gives the lock back. The one that is kept is never lock, so a child of fork may have it.
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
        // Whoever has read another base before this moment grants by it for no longer than `LOOK`.
        let now = Instant::real();
        let changed = agreed.base != known || stored.is_none_or(|stored| stored.base != agreed.base);
        let fresh = changed && now - Instant::from_nanos(agreed.since) < KNOWN;
        let from = if fresh { now.plus(LOOK) } else { Instant::START };
        let awaited = Instant::from_nanos(agreed.awaited);
        return Ok(Seen { file: Arc::new(file), inode, base: agreed.base, from, awaited, at });
    }
}

/// What is to stand in the file.
fn agree(stored: Option<Stored>, boot: u128, known: u64, now: Instant) -> Stored {
    let nanos = now.nanos();
    let same = stored.filter(|stored| {
        // Without a number for the boot, the clock that began anew tells.
        stored.boot == boot && (boot != 0 || stored.base.saturating_add((now.plus(AHEAD * 2)).nanos()) >= stored.mark)
    });
    let base = match (same, stored) {
        (Some(same), _) => same.base.max(known),
        (None, Some(before)) => offset().max(known).max((before.mark + 1).saturating_sub(nanos)),
        (None, None) => offset().max(known),
    };
    let mut agreed = match same {
        Some(same) if same.base == base => same,
        _ => Stored { boot, base, since: nanos, mark: 0, awaited: stored.map_or(0, |stored| stored.awaited) },
    };
    if base.saturating_add(nanos) > agreed.mark {
        agreed.mark = base.saturating_add(now.plus(AHEAD).nanos());
    }
    agreed
}

/// By how much the wall clock is ahead of the boot-time clock.
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

/// The number of this boot; 0 where there is none.
fn boot() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}
