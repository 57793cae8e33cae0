//! A host name with several addresses, for one program only.

use std::process::Command;

use tempfile::TempDir;

use super::preload::compile;

/// A host name with several addresses. The program may look it up as long as this value exists.
#[derive(Debug)]
pub struct Name {
    folder: TempDir,
    entry: String,
}

impl Name {
    /// Makes this name with these addresses in this order.
    ///
    /// # Errors
    /// If its library can't be compiled or written.
    pub fn new(name: &str, addresses: &[&str]) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let library = compile("names", include_str!("names.c"))?;
        std::fs::write(folder.path().join("names.so"), library).map_err(|error| error.to_string())?;
        Ok(Self { folder, entry: format!("{name}={}", addresses.join(",")) })
    }

    /// Makes a program know the name.
    pub fn put(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.folder.path().join("names.so")).env("DLOCK_TEST_NAME", &self.entry);
    }
}
