//! The deployments that the soak test starts by a word, and the faults that it injects into their servers.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

/// A deployment that a word of `dlock-soak --url` starts.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    pub word: &'static str,
    /// The function that starts it. When the result is dropped, its servers and folders are removed.
    pub start: fn() -> Result<Arc<dyn Deployed>, String>,
}

/// A place for the locks of one run.
pub trait Deployed: Send + Sync {
    /// Returns the addresses of the servers, each for a proxy. The list is empty if no network leads to the place.
    fn addrs(&self) -> Vec<SocketAddr>;

    /// Returns the URL of the place, with `addrs` instead of the addresses of its servers.
    fn url(&self, addrs: &[SocketAddr]) -> String;

    /// Returns the name and version of the servers, where they matter.
    fn version(&self) -> Option<String> {
        None
    }

    /// Returns the faults that the servers can have.
    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>>;
}

/// A fault of a server.
pub trait ServerFault: Send {
    /// Returns the fault's name in the history.
    fn name(&self) -> &'static str;

    /// Returns true if the fault is over as soon as it has begun.
    fn is_short(&self) -> bool;

    /// Chooses the next target of the fault, and returns the target's name.
    ///
    /// # Errors
    /// If the servers don't answer.
    fn choose(&mut self, rng: &mut fastrand::Rng) -> Result<String, String>;

    /// Begins the fault.
    ///
    /// # Errors
    /// If the fault can't be made.
    fn begin(&mut self) -> Result<(), String>;

    /// Ends the fault.
    ///
    /// # Errors
    /// If the fault can't be undone.
    fn end(&mut self) -> Result<(), String>;
}

/// A function that begins or ends a fault.
pub(super) type Act<T> = fn(&T) -> Result<(), String>;

/// A fault of the only server.
pub(super) struct OfServer<T> {
    pub(super) name: &'static str,
    pub(super) is_short: bool,
    pub(super) begin: Act<T>,
    pub(super) end: Act<T>,
    pub(super) server: Arc<T>,
}

impl<T: Send + Sync> ServerFault for OfServer<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_short(&self) -> bool {
        self.is_short
    }

    fn choose(&mut self, _: &mut fastrand::Rng) -> Result<String, String> {
        Ok("server".to_owned())
    }

    fn begin(&mut self) -> Result<(), String> {
        (self.begin)(&self.server)
    }

    fn end(&mut self) -> Result<(), String> {
        (self.end)(&self.server)
    }
}
