//! Reads a configuration file: one that was named, or one that happens to be there and has to be trustworthy.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Nobody's configuration is larger: 1 MiB.
const LIMIT: u64 = 1 << 20;

/// The text of a file that was named.
pub(super) fn explicit(path: &Path) -> Result<String> {
    let text = open(path).and_then(|(file, _)| read(file));
    text.map_err(|error| {
        let place = path.display();
        let remedy = "name a readable file by DLOCK_CONFIG or config=, or drop that";
        Error::invalid(format!("the configuration file {place} can't be read: {error}; {remedy}"))
    })
}

/// The text of a file that may be there and may be used; else `None`, and a note unless it just isn't there.
pub(super) fn implicit(path: &Path, notes: &mut Vec<String>) -> Option<String> {
    let text = open(path).and_then(|(file, found)| {
        trust(&found)?;
        read(file)
    });
    match text {
        Ok(text) => Some(text),
        Err(error) => {
            let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind());
            if !absent {
                notes.push(format!("{} ignored: {error}", path.display()));
            }
            None
        }
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

fn read(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it isn't UTF-8"))
}

#[cfg(unix)]
fn trust(found: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me && found.uid() != 0 {
        return Err(io::Error::other("it belongs neither to this user nor to root"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(io::Error::other("its group or others may write it (chmod go-w)"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn trust(_: &Metadata) -> io::Result<()> {
    Ok(())
}
