//! A program's wall clock, which a test sets forwards and back while the program runs.

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
    /// The folder of the library. It isn't in memory like the others, because such file systems often forbid libraries.
    folder: TempDir,
    offset: File,
}

impl Clock {
    /// Makes a clock that shows the machine's time.
    ///
    /// # Errors
    /// If the clock can't be made. It needs a C compiler.
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

    /// Makes the program use this clock.
    pub fn put(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.path("clock.so")).env("DLOCK_TEST_CLOCK", self.path("offset"));
    }

    /// Sets the clock forwards or back.
    ///
    /// # Errors
    /// If the clock's file can't be written.
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

/// Returns the library, which is compiled once in this process.
fn library() -> Result<&'static [u8], String> {
    static LIBRARY: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("clock", include_str!("clock.c"))).as_deref().map_err(Clone::clone)
}
