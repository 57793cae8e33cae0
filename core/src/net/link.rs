//! The link of a client to its servers: one connection, made when it is needed and replaced when it is of no use any
//! more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::address::Address;
use super::connection::{Connection, SharedConnection};
use super::failure::Failure;
use super::request::Limits;
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::error::{Error, Result};

/// The protocol of a backend: its connections, and the state that they share.
pub(crate) trait Wire: Connection + Sized {
    /// The name of the service in the texts of errors.
    const SERVICE: &'static str;
    /// The state that all connections of a link share.
    type Shared: Send + Sync + 'static;

    /// Connects, and gives the connection this number.
    fn connect(link: Arc<Link<Self>>, number: u64) -> impl Future<Output = Result<Arc<Self>>> + Send + 'static;

    /// Marks the connection: no request is to be sent on it any more.
    fn give_up(&self) {
        self.status().give_up();
    }

    /// Handles the loss of the connection that was in use.
    fn lost(link: &Link<Self>) {
        let _ = link;
    }
}

/// The link of a client.
pub(crate) struct Link<W: Wire> {
    pub(crate) addresses: Vec<Address>,
    pub(crate) config: Config,
    pub(crate) shared: W::Shared,
    connection: Arc<SharedConnection<W>>,
    made: AtomicU64,
}

impl<W: Wire> Link<W> {
    pub(crate) fn new(addresses: Vec<Address>, config: Config, shared: W::Shared) -> Self {
        Self { addresses, config, shared, connection: SharedConnection::new(), made: AtomicU64::new(0) }
    }

    /// Returns the limits of a request that is sent on another connection too after this time.
    pub(crate) fn limits(&self, patience: Duration) -> Limits {
        Limits { patience, budget: self.config.connect_timeout() }
    }

    /// Returns the number of connections that have been made. While it stays the same, all answers are of one server
    /// and its one history.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// Returns true if there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.live().is_some()
    }

    /// Returns the connection, or makes one until `end`.
    pub(crate) async fn connected(self: &Arc<Self>, end: Instant) -> Result<Arc<W>, Failure> {
        match self.connection.live() {
            Some(connection) => Ok(connection),
            // In a box, like all rare futures: otherwise the future of every request would be larger.
            None => Box::pin(self.connect_until(end)).await,
        }
    }

    async fn connect_until(self: &Arc<Self>, end: Instant) -> Result<Arc<W>, Failure> {
        tokio::select! {
            biased;
            made = self.connect(None) => made.map_err(Failure::not_applied),
            () = clock::sleep_until(end) => Err(Failure::not_applied(self.silence("no connection was made in time"))),
        }
    }

    /// Returns the connection, or makes one; `other`: another than the one of this number.
    pub(crate) async fn connect(self: &Arc<Self>, other: Option<u64>) -> Result<Arc<W>> {
        let make = |number| {
            let link = self.clone();
            async move {
                let made = W::connect(link.clone(), number).await;
                link.made.fetch_add(1, Ordering::AcqRel);
                made
            }
        };
        let made = self.connection.get(other, make).await;
        made.unwrap_or_else(|| Err(self.silence("connecting was given up")))
    }

    /// Gives up a connection that is of no use any more.
    pub(crate) fn give_up(&self, connection: &W) {
        connection.give_up();
        self.forget(connection.status().number());
    }

    /// Forgets the connection of this number, which is of no use any more.
    pub(crate) fn forget(&self, number: u64) {
        if self.connection.forget(number) {
            W::lost(self);
        }
    }

    /// Returns the error of a server that is silent.
    pub(crate) fn silence(&self, what: &str) -> Error {
        let hint = self.addresses.first().map_or("", Address::hint);
        Error::unavailable(format!(
            "{} at {}: {what}; is it overloaded or stopped, or the network cut{hint}?",
            W::SERVICE,
            self.names()
        ))
    }

    /// Returns the addresses as a text.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        names.join(", ")
    }
}

impl<W: Wire> fmt::Debug for Link<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.names())
    }
}
