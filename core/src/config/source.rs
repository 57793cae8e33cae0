//! Reads a configuration file: one that was named, or one that happens to be there and has to be trustworthy.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Nobody's configuration is larger: 1 MiB.
const LIMIT: u64 = 1 << 20;

/// The remedies for a file that nobody named, beside mending it.
pub(super) const ELSEWHERE: &str =
    "or name the configuration that is meant by DLOCK_CONFIG, or the client by DLOCK_URL";

/// The text of a file that was named.
pub(super) fn explicit(path: &Path) -> Result<String> {
    let text =
        open(path).and_then(|(file, _)| String::from_utf8(read(file)?).map_err(|_| io::Error::other("it isn't UTF-8")));
    text.map_err(|error| {
        let place = path.display();
        let remedy = "name a readable file by DLOCK_CONFIG or config=, or drop that";
        Error::invalid(format!("the configuration file {place} can't be read: {error}; {remedy}"))
    })
}

/// A file that nobody named.
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    /// The reason that nothing in it may be used, and the remedy.
    pub(super) distrust: Option<&'static str>,
}

/// The file that may be there. `None` where there is none, with a note if something else is there.
///
/// # Errors
/// `Invalid` for one that can't be read: nobody knows what it says.
pub(super) fn implicit(path: &Path, notes: &mut Vec<String>) -> Result<Option<Found>> {
    let regular = match path.metadata() {
        Ok(found) => found.is_file(),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(None);
        }
        // The directory itself is closed to us: there may be anything in it, also nothing.
        Err(error) => {
            notes.push(format!("{} ignored: {error}", path.display()));
            return Ok(None);
        }
    };
    if !regular {
        notes.push(format!("{} ignored: it isn't a regular file", path.display()));
        return Ok(None);
    }
    let found = open(path).and_then(|(file, found)| Ok(Found { bytes: read(file)?, distrust: distrust(&found) }));
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(|error| {
            let place = path.display();
            Error::invalid(format!("{place} is there, but can't be read: {error}; make it readable, {ELSEWHERE}"))
        }),
    }
}

fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // Looked at before it is opened: opening a FIFO waits for its writer.
    let regular = |found: Metadata| {
        if found.is_file() { Ok(found) } else { Err(io::Error::other("it isn't a regular file")) }
    };
    regular(path.metadata()?)?;
    let file = File::open(path)?;
    let found = regular(file.metadata()?)?;
    Ok((file, found))
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn distrust(found: &Metadata) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me && found.uid() != 0 {
        return Some("the file belongs neither to this user nor to root: give it to one of them (chown)");
    }
    (found.mode() & 0o022 != 0).then_some("its group or others may write the file: take that from them (chmod go-w)")
}

#[cfg(not(unix))]
fn distrust(_: &Metadata) -> Option<&'static str> {
    None
}
