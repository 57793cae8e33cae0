//! A name with several addresses, in the eyes of one program.

use std::process::Command;

use tempfile::TempDir;

use super::preload::compile;

/// Such a name. The program may look it up for as long as this exists.
#[derive(Debug)]
pub struct Name {
    folder: TempDir,
    entry: String,
}

impl Name {
    /// This name, with these addresses in this order.
    ///
    /// # Errors
    /// When what makes it can't be compiled or written.
    pub fn new(name: &str, addresses: &[&str]) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let library = compile("names", include_str!("names.c"))?;
        std::fs::write(folder.path().join("names.so"), library).map_err(|error| error.to_string())?;
        Ok(Self { folder, entry: format!("{name}={}", addresses.join(",")) })
    }

    /// Has a program know it.
    pub fn put(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.folder.path().join("names.so")).env("DLOCK_TEST_NAME", &self.entry);
    }
}
