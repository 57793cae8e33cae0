//! The backends of the tests: one file or folder for each, and the only list of them.
//!
//! [`TestBackend`] has the methods that the suite, the soak test and the fault scenarios need. A backend without a
//! server implements only the first part of them.

/// Calls a macro with the names of all backends and the other arguments: first the backends within this machine, then
/// those with a server. To add a backend, add its name here and its `mod` line below.
#[macro_export]
macro_rules! with_backends {
    ($then:ident $($rest:tt)*) => { $then! { {memory file} {redis etcd mysql mysql_table zookeeper} $($rest)* } };
}

pub mod deployed;
pub mod etcd;
pub mod file;
pub mod memory;
pub mod mysql;
pub mod mysql_table;
pub mod redis;
pub mod server;
pub mod zookeeper;

use std::fmt::{Debug, Display};
use std::path::Path;
use std::time::Duration;

use dlock::config::Values;
use dlock::contract::{Capabilities, Driver};
use dlock::drivers::DRIVERS;

pub use self::deployed::{Deployed, Deployment, ServerFault};
pub use self::server::{Fault, Login, Request, Setup, TestServer};

macro_rules! list {
    ({$($local:ident)*} {$($remote:ident)*}) => {
        /// All backends.
        pub static BACKENDS: &[&dyn TestBackend] = &[$(&$local::Backend,)* $(&$remote::Backend,)*];
    };
}

with_backends!(list);

/// One backend of the tests.
pub trait TestBackend: Debug + Sync {
    /// Returns the name of the backend in the tests.
    fn name(&self) -> &'static str;

    /// Returns the name of the backend's driver, which is the scheme of its URLs.
    fn driver(&self) -> &'static str {
        self.name()
    }

    /// Returns the option that each of its URLs has.
    fn option(&self) -> Option<&'static str> {
        None
    }

    /// Returns the URL of a place: an address, perhaps with a login.
    fn url_of(&self, place: &dyn Display) -> String {
        let url = format!("{}://{place}", self.driver());
        self.option().map_or(url.clone(), |option| with_option(&url, option))
    }

    /// Returns the driver's capabilities without more options.
    fn capabilities(&self) -> Capabilities {
        let driver = driver(self.driver());
        (driver.capabilities)(&Values::new(driver.schema))
    }

    /// Returns the shortest ttl that the backend keeps.
    fn min_ttl(&self) -> Duration {
        self.capabilities().min_ttl
    }

    /// Returns the number of lanes in which the suite plays a cell. It is more than 1 if a case mostly waits.
    fn lanes(&self) -> usize {
        1
    }

    /// Returns true if every language plays every case on this backend in a covering run.
    fn is_whole(&self) -> bool {
        false
    }

    /// Returns the words for what cases can do to this backend, of those that no capability answers: `outside files
    /// keys`; `longer`: a lease can be renewed with a longer ttl; `breaks`: a lock can be taken away from its holder;
    /// `names`: it knows who holds and who waits.
    fn outside(&self) -> &'static [&'static str];

    /// Starts everything that the cases of one cell need, with this folder for their files.
    ///
    /// # Errors
    /// If a server or one of its programs is missing.
    fn cases(&self, folder: &Path) -> Result<Box<dyn Cases>, String>;

    /// Returns the deployments that the soak test can start by a word.
    fn deployments(&self) -> &'static [Deployment] {
        &[]
    }

    /// Returns the time for which the lock of a dead process stays at most, whatever happens to the servers in that
    /// time.
    fn outlives(&self, ttl: Duration) -> Duration {
        ttl
    }

    /// Returns the faults that the backend can have. `tests/faults/skips.txt` has the others, each with its reason.
    fn faults(&self) -> &'static [Fault];

    /// Returns the functions that a fault scenario needs, or `None` for a backend without a server.
    fn remote(&self) -> Option<&'static dyn server::Remote> {
        None
    }
}

/// The place where the cases of one cell are played. When it is dropped, its servers end.
pub trait Cases: Send + Sync {
    /// Returns the URL of a place for this case. Each call with this case returns the same URL, and nothing else uses
    /// it. The name of a case has letters, digits, `-` and one `/`.
    ///
    /// # Errors
    /// If a server doesn't start.
    fn url(&self, case: &str) -> Result<String, String>;

    /// Does something that others may do to the locks of a case: `remove KEY`, `replace KEY`, `wipe` or a command of
    /// the server.
    ///
    /// # Errors
    /// If it can't be done.
    fn act(&self, case: &str, words: &[&str]) -> Result<(), String>;
}

/// Returns the backend of this name.
///
/// # Errors
/// If the tests have no such backend.
pub fn named(name: &str) -> Result<&'static dyn TestBackend, String> {
    let found = BACKENDS.iter().find(|backend| backend.name() == name);
    found.copied().ok_or_else(|| format!("the list in tests/harness/src/backends/mod.rs has no {name}"))
}

/// Returns the backend of a URL whose driver has this name.
///
/// # Errors
/// If the tests have no such backend.
pub fn of_url(driver: &str, url: &str) -> Result<&'static dyn TestBackend, String> {
    let has_option = |backend: &&&dyn TestBackend| backend.option().is_some_and(|option| url.contains(option));
    let of_driver = || BACKENDS.iter().filter(|backend| backend.driver() == driver);
    of_driver().find(has_option).map_or_else(|| named(driver), |backend| Ok(*backend))
}

/// Returns a URL with one more option, or several: `a=b&c=d`.
pub fn with_option(url: &str, option: &str) -> String {
    format!("{url}{}{option}", if url.contains('?') { '&' } else { '?' })
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
        let mut known: Vec<_> = BACKENDS.iter().map(|backend| backend.driver()).collect();
        // A driver may have a backend for each of its modes.
        known.dedup();
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
