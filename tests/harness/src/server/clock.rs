//! A program's wall clock, set forwards and back while it runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::preload::compile;

/// The clock of one program.
#[derive(Debug)]
pub struct Clock {
    /// Not in memory as the rest: what is mounted there is often closed to libraries.
    folder: TempDir,
    offset: File,
}

impl Clock {
    /// One that goes as the machine's.
    ///
    /// # Errors
    /// Why there is none: it needs a C compiler.
    pub fn new() -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let make = || {
            let offset = File::options().read(true).write(true).create_new(true).open(folder.path().join("offset"))?;
            offset.write_all_at(&0_i64.to_ne_bytes(), 0)?;
            Ok(offset)
        };
        let offset = make().map_err(|error: std::io::Error| error.to_string())?;
        std::fs::write(folder.path().join("clock.so"), library()?).map_err(|error| error.to_string())?;
        Ok(Self { folder, offset })
    }

    /// Has the program go by this clock.
    pub fn put(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.path("clock.so")).env("DLOCK_TEST_CLOCK", self.path("offset"));
    }

    /// Sets it.
    ///
    /// # Errors
    /// When its file can't be written.
    pub fn step(&self, by: Duration, forwards: bool) -> std::io::Result<()> {
        let mut now = [0; 8];
        self.offset.read_exact_at(&mut now, 0)?;
        let by = i64::try_from(by.as_nanos()).map_err(std::io::Error::other)?;
        let now = i64::from_ne_bytes(now) + if forwards { by } else { -by };
        self.offset.write_all_at(&now.to_ne_bytes(), 0)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The library, compiled once in this process.
fn library() -> Result<&'static [u8], String> {
    static LIBRARY: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("clock", include_str!("clock.c"))).as_deref().map_err(Clone::clone)
}
