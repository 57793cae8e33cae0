//! The memory backend. All of it is in the process.

use std::path::Path;

use super::{Cases, Fault, TestBackend, flat};

/// The memory backend.
#[derive(Debug)]
pub struct Backend;

/// The prefix of the names of this cell. No other cell uses it.
struct Names(String);

impl TestBackend for Backend {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn outside(&self) -> &'static [&'static str] {
        &["longer", "breaks", "names"]
    }

    fn cases(&self, folder: &Path) -> Result<Box<dyn Cases>, String> {
        Ok(Box::new(Names(folder.file_name().unwrap_or_default().to_string_lossy().into_owned())))
    }

    fn faults(&self) -> &'static [Fault] {
        &[]
    }
}

impl Cases for Names {
    fn url(&self, case: &str) -> Result<String, String> {
        Ok(format!("memory://{}-{}", self.0, flat(case)))
    }

    fn act(&self, _: &str, words: &[&str]) -> Result<(), String> {
        Err(format!("nothing outside can do {words:?} to memory"))
    }
}
