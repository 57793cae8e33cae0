//! One backend under test by one language: the place of its cases, and the questions that a case may ask about it.

use std::path::Path;
use std::time::Duration;

use dlock_harness::backends::{Cases, TestBackend};

/// One backend under test by one language.
pub(crate) struct Fixture {
    backend: &'static dyn TestBackend,
    cases: Box<dyn Cases>,
}

impl Fixture {
    /// Starts everything that the backend needs. A server ends with this value.
    pub(crate) fn new(backend: &'static dyn TestBackend, folder: &Path) -> Result<Self, String> {
        Ok(Self { backend, cases: backend.cases(folder)? })
    }

    pub(crate) fn driver(&self) -> &'static str {
        self.backend.driver()
    }

    /// Returns the URL of an unused place for a case.
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

    /// Returns the time within which a lock of the shortest ttl ends without its holder.
    pub(crate) fn ends_within(&self) -> Duration {
        self.min_ttl() + self.backend.remote().map_or(Duration::ZERO, |remote| remote.lag())
    }

    /// Does to the backend's locks what others may do to them.
    pub(crate) fn server(&self, case: &str, words: &[&str]) -> Result<(), String> {
        self.cases.act(case, words)
    }

    /// Returns true if the backend can do it. `word` is one of [`OF_BACKENDS`](crate::case::OF_BACKENDS).
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
