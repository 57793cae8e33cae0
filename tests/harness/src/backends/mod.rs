//! The backends as the tests know them: one file or folder for each, and the only list of them.
//!
//! [`TestBackend`] is what the suite, the soak test and the fault scenarios ask of a backend. A backend without a server
//! answers the first part only.

/// Calls a macro with the names of all backends and what follows: those that live in this machine first, then those
/// with a server. A new backend adds its name here and its `mod` line below.
#[macro_export]
macro_rules! with_backends {
    ($then:ident $($rest:tt)*) => { $then! { {memory file} {redis etcd} $($rest)* } };
}

pub mod deployed;
pub mod etcd;
pub mod file;
pub mod memory;
pub mod redis;
pub mod server;

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use dlock::config::Values;
use dlock::contract::{Capabilities, Driver};
use dlock::drivers::DRIVERS;

pub use self::deployed::{Deployed, Deployment, ServerFault};
pub use self::server::{Fault, Login, Request, Setup, TestServer};

macro_rules! list {
    ({$($local:ident)*} {$($remote:ident)*}) => {
        /// Every backend.
        pub static BACKENDS: &[&dyn TestBackend] = &[$(&$local::Backend,)* $(&$remote::Backend,)*];
    };
}

with_backends!(list);

/// One backend as the tests know it.
pub trait TestBackend: Debug + Sync {
    /// Returns the name of its driver, which is the scheme of its URLs.
    fn name(&self) -> &'static str;

    /// Returns what its driver promises without options.
    fn capabilities(&self) -> Capabilities {
        let driver = driver(self.name());
        (driver.capabilities)(&Values::new(driver.schema))
    }

    /// Returns the shortest ttl that it keeps.
    fn min_ttl(&self) -> Duration {
        self.capabilities().min_ttl
    }

    /// Returns in how many lanes the suite plays a cell: more than one where a case waits most of its time.
    fn lanes(&self) -> usize {
        1
    }

    /// Returns true if every language plays every case on it in a covering run.
    fn is_whole(&self) -> bool {
        false
    }

    /// Returns what its cases can do to it, of the words that no capability answers: `outside files keys`.
    fn outside(&self) -> &'static [&'static str];

    /// Starts what the cases of one cell need, with this folder for its files.
    ///
    /// # Errors
    /// When a server or one of its programs isn't there.
    fn cases(&self, folder: &Path) -> Result<Box<dyn Cases>, String>;

    /// Returns what the soak test can start by a word.
    fn deployments(&self) -> &'static [Deployment] {
        &[]
    }

    /// Returns for how long the lock of a dead process stays, whatever happens to the servers meanwhile.
    fn outlives(&self, ttl: Duration) -> Duration {
        ttl
    }

    /// Returns the faults that it can have. The others are in `tests/faults/skips.txt`, each with its reason.
    fn faults(&self) -> &'static [Fault];

    /// Returns what a fault scenario needs of a backend with a server; `None` without one.
    fn remote(&self) -> Option<&'static dyn server::Remote> {
        None
    }
}

/// The place where the cases of one cell are played. Dropped, its servers have ended.
pub trait Cases: Send + Sync {
    /// Returns a URL that nobody has used, the same for each call with this case; a case's name has letters, digits,
    /// `-` and one `/`.
    ///
    /// # Errors
    /// When a server doesn't start.
    fn url(&self, case: &str) -> Result<String, String>;

    /// Does what others may do to the locks of a case: `remove KEY`, `replace KEY`, `wipe` or a command of the server.
    ///
    /// # Errors
    /// When it can't be done.
    fn act(&self, case: &str, words: &[&str]) -> Result<(), String>;
}

/// Returns the backend of this name.
///
/// # Errors
/// When the tests have none.
pub fn named(name: &str) -> Result<&'static dyn TestBackend, String> {
    let found = BACKENDS.iter().find(|backend| backend.name() == name);
    found.copied().ok_or_else(|| format!("the list in tests/harness/src/backends/mod.rs has no {name}"))
}

/// Returns a case's name as one word of a path.
fn flat(case: &str) -> String {
    case.replace('/', "-")
}

fn driver(name: &str) -> &'static Driver {
    DRIVERS.iter().find(|driver| driver.schema.name == name).expect("each backend of the tests has a driver")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_is_in_the_list_and_in_its_order() {
        let known: Vec<_> = BACKENDS.iter().map(|backend| backend.name()).collect();
        assert_eq!(known, DRIVERS.iter().map(|driver| driver.schema.name).collect::<Vec<_>>());
    }

    #[test]
    fn a_backend_has_what_its_faults_need() {
        for backend in BACKENDS {
            let can = backend.faults().contains(&Fault::Server);
            assert_eq!(can, backend.remote().is_some(), "{}", backend.name());
        }
    }
}
