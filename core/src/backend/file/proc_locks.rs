//! The holder of a lock file, as the kernel knows it: the process and nothing else.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use crate::contract::ContenderInfo;
use crate::error::{Error, Kind, Result};

/// The number of reads of the table before the lock counts as free.
const LOOKS: usize = 3;

/// Returns the processes that hold a flock on this path. Empty if the system has no table.
pub(super) fn contenders(path: &str) -> Vec<ContenderInfo> {
    let Ok(stat) = rustix::fs::stat(path) else { return Vec::new() };
    let device = device(&stat);
    let look = || -> Vec<ContenderInfo> {
        let mut found: Vec<ContenderInfo> = Vec::new();
        for holder in table().unwrap_or_default().lines().filter_map(|line| holder(line, &device, stat.st_ino)) {
            if found.iter().all(|other| other.pid != holder.pid) {
                found.push(holder);
            }
        }
        found
    };
    (0..LOOKS).map(|_| look()).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Returns the keys of this prefix whose lock files in this directory are locked by a process.
///
/// # Errors
/// `Unsupported` if the system has no table.
pub(super) fn keys(dir: &Path, prefix: &str) -> Result<Vec<String>> {
    let mut locked = HashSet::new();
    for _ in 0..LOOKS {
        let table = table().map_err(|_| {
            Error::new(Kind::Unsupported, "this system has no table of locks: ask for the contenders of each key")
        })?;
        locked.extend(table.lines().filter_map(flock).map(|(_, device, inode)| (device.to_owned(), inode)));
    }
    let shown = dir.display().to_string();
    let files = fs::read_dir(dir).map_err(|error| Error::unavailable(format!("can't read {shown:?}: {error}")))?;
    let keys = files.filter_map(|file| {
        let file = file.ok()?;
        let key = file.file_name().to_str().and_then(super::keys::key).filter(|key| key.starts_with(prefix))?;
        let stat = rustix::fs::lstat(file.path()).ok()?;
        locked.contains(&(device(&stat), stat.st_ino)).then_some(key)
    });
    Ok(keys.collect())
}

/// Returns the device of a file, as the table shows it.
fn device(stat: &rustix::fs::Stat) -> String {
    format!("{:02x}:{:02x}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev))
}

/// Reads the kernel's table of locks. Every read continues from the last position, so a lock that comes or goes in
/// between shows another lock twice or hides it. So the reads are few and large, each process counts once, and an empty
/// result is checked again.
fn table() -> std::io::Result<String> {
    let mut file = fs::File::open("/proc/locks")?;
    let (mut bytes, mut part) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// Reads a line such as `1: FLOCK  ADVISORY  WRITE 1234 fe:00:56789 0 EOF`: process, device and inode.
fn flock(line: &str) -> Option<(i64, &str, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    let (device, inode) = fields.next()?.rsplit_once(':')?;
    Some((pid, device, inode.parse().ok()?))
}

/// Reads the holder of this file from a line of the table.
fn holder(line: &str, device: &str, inode: u64) -> Option<ContenderInfo> {
    let (pid, ..) = flock(line).filter(|(_, on, number)| (*on, *number) == (device, inode))?;
    // A process of another namespace is shown as 0 or -1.
    let pid = u32::try_from(pid).ok().filter(|&pid| pid > 0);
    Some(ContenderInfo {
        held: true,
        pid,
        host: Some(crate::contract::owner::host().to_owned()),
        ..ContenderInfo::default()
    })
}

#[cfg(test)]
mod tests {
    use super::holder;

    #[test]
    fn reads_a_line_of_the_kernel() {
        let line = "3: FLOCK  ADVISORY  WRITE 1234 fe:00:56789 0 EOF";
        assert_eq!(holder(line, "fe:00", 56789).and_then(|holder| holder.pid), Some(1234));
        assert!(holder(line, "fe:00", 5).is_none());
        assert!(holder("1: POSIX  ADVISORY  WRITE 9 fe:00:56789 0 EOF", "fe:00", 56789).is_none());
        assert!(holder("1: -> FLOCK  ADVISORY  WRITE 9 fe:00:56789 0 EOF", "fe:00", 56789).is_none());
        let unknown = holder("1: FLOCK  ADVISORY  WRITE -1 fe:00:56789 0 EOF", "fe:00", 56789);
        assert_eq!(unknown.map(|holder| holder.pid), Some(None));
    }
}
