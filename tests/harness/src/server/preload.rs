//! Libraries that replace a part of the C library in one program.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Compiles a library.
pub(super) fn compile(name: &str, source: &str) -> Result<Vec<u8>, String> {
    let folder = TempDir::new().map_err(|error| error.to_string())?;
    let path = |ending: &str| folder.path().join(format!("{name}.{ending}"));
    let run = |file: &Path, library: &Path| {
        std::fs::write(file, source)?;
        let flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"];
        Command::new("cc").args(flags).arg(library).arg(file).output()
    };
    let done = run(&path("c"), &path("so")).map_err(|error| format!("cc: {error}"))?;
    if !done.status.success() {
        return Err(format!("cc can't compile {name}.c: {}", String::from_utf8_lossy(&done.stderr)));
    }
    std::fs::read(path("so")).map_err(|error| error.to_string())
}
