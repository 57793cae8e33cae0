//! By which a backend reports to the engine.

use std::fmt;
use std::sync::Arc;

use super::owner;

/// The leases that a backend suspects to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspects<'a> {
    /// Those that are held under this name of the backend's.
    Name(&'a str),
    /// Those of this session, see [`Grant::session`](super::Grant::session).
    Session(u64),
}

/// The part of the engine that a backend reports to.
pub trait Observer: Send + Sync {
    /// Renews these leases at once: they may have been lost.
    fn suspect(&self, of: Suspects<'_>);

    /// Reports that the backend, as it is configured, can't keep what a lock promises.
    fn warn(&self, note: &str);
}

/// The client that a backend is made for, and its engine.
#[derive(Clone)]
pub struct Context {
    client: u32,
    observer: Arc<dyn Observer>,
}

impl Context {
    /// The context of the client of this number.
    pub(crate) fn new(client: u32, observer: Arc<dyn Observer>) -> Self {
        Self { client, observer }
    }

    /// The client's name in a backend's queue; the ids of its claims begin with it.
    pub fn contender(&self) -> String {
        owner::contender(self.client)
    }

    /// Renews the leases that are held under this name of the backend's at once, if there are any: the lock may have been
    /// taken away.
    pub fn suspect(&self, name: &str) {
        self.observer.suspect(Suspects::Name(name));
    }

    /// Renews all leases of this session at once: it may have ended.
    pub fn suspect_session(&self, session: u64) {
        self.observer.suspect(Suspects::Session(session));
    }

    /// As [`Observer::warn`].
    pub fn warn(&self, note: &str) {
        self.observer.warn(note);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("client", &self.client).finish_non_exhaustive()
    }
}
