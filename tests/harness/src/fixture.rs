//! One backend under test by one language: where its cases are, and what a case may ask of it.

use std::path::Path;
use std::time::Duration;

use dlock_harness::backends::{Cases, TestBackend};

/// One backend under test by one language.
pub(crate) struct Fixture {
    backend: &'static dyn TestBackend,
    cases: Box<dyn Cases>,
}

impl Fixture {
    /// Starts what the backend needs. A server ends with this value.
    pub(crate) fn new(backend: &'static dyn TestBackend, folder: &Path) -> Result<Self, String> {
        Ok(Self { backend, cases: backend.cases(folder)? })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// Returns the URL of a place that nobody has used, for a case.
    pub(crate) fn url(&self, case: &str) -> Result<String, String> {
        self.cases.url(case)
    }

    /// Returns the URL without its scheme.
    pub(crate) fn address(&self, case: &str) -> Result<String, String> {
        let url = self.url(case)?;
        Ok(url.split_once("://").map(|(_, address)| address.to_owned()).unwrap_or_default())
    }

    pub(crate) fn min_ttl(&self) -> Duration {
        self.backend.min_ttl()
    }

    /// Does what others do to the backend.
    pub(crate) fn server(&self, case: &str, words: &[&str]) -> Result<(), String> {
        self.cases.act(case, words)
    }

    /// Returns true if the backend has it: a word of [`OF_BACKENDS`](crate::case::OF_BACKENDS).
    pub(crate) fn can(&self, word: &str) -> bool {
        let can = self.backend.capabilities();
        match word {
            "fence" => can.fence,
            "ttl" => can.ttl,
            "fifo" => can.fifo,
            "shared" => can.shared,
            "permits" => can.permits,
            "handoff" => can.handoff,
            "processes" => can.processes,
            "fork" => can.fork,
            "local" => can.local,
            other => self.backend.outside().contains(&other),
        }
    }
}
