//! What the soak test starts by a word, and the faults that it injects into the servers.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a word of `dlock-soak --url` starts.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    pub word: &'static str,
    /// Starts it. Dropped, its servers and folders are gone.
    pub start: fn() -> Result<Arc<dyn Deployed>, String>,
}

/// A place for the locks of one run.
pub trait Deployed: Send + Sync {
    /// Returns the addresses of its servers, each for a proxy; none where no network leads to it.
    fn addrs(&self) -> Vec<SocketAddr>;

    /// Returns its URL, with these addresses for those of its servers.
    fn url(&self, addrs: &[SocketAddr]) -> String;

    /// Returns the name and version of the servers, where it matters.
    fn version(&self) -> Option<String> {
        None
    }

    /// Returns the faults that its servers can have.
    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>>;
}

/// A fault of a server.
pub trait ServerFault: Send {
    /// Returns its name in the history.
    fn name(&self) -> &'static str;

    /// Returns true if it is over as soon as it is done.
    fn is_short(&self) -> bool;

    /// Chooses whom it is done to next, and names it.
    ///
    /// # Errors
    /// When the servers don't tell.
    fn choose(&mut self, rng: &mut fastrand::Rng) -> Result<String, String>;

    /// Does it.
    ///
    /// # Errors
    /// When it can't be done.
    fn begin(&mut self) -> Result<(), String>;

    /// Undoes it.
    ///
    /// # Errors
    /// When it can't be undone.
    fn end(&mut self) -> Result<(), String>;
}

/// Does or undoes a fault.
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
