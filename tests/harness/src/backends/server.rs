//! What a fault scenario needs of a backend with a server: it starts the server, breaks it, and looks into it raw.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::server::Certs;
use crate::server::process::Process;

/// A fault that some backends can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A server behind a network: it stops, dies and comes back, and requests and replies are lost or late.
    Server,
    /// A server that comes back without its data and goes on from there.
    DataLoss,
}

impl Fault {
    /// Returns its word in `tests/faults/skips.txt`, after `needs:`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::DataLoss => "data-loss",
        }
    }
}

/// A request that a proxy can tell from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// One that asks for a lock.
    Acquire,
    /// One that releases it.
    Release,
}

/// How a server is to be started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// What it has confirmed is there after a restart.
    pub durable: bool,
    /// It asks for the login of [`Remote::login`].
    pub login: bool,
    /// It serves TLS: its URL is that of TLS.
    pub tls: bool,
    /// It can be filled within a moment, see [`TestServer::fill`].
    pub small: bool,
}

/// A login, and what an error says of a wrong one.
#[derive(Clone, Copy, Debug)]
pub struct Login {
    /// The user and the password as a URL has them.
    pub right: &'static str,
    /// The same user with another password.
    pub wrong: &'static str,
    /// The part of both that no text may show.
    pub secret: &'static str,
    /// The words of the error for a wrong password.
    pub of_wrong: &'static [&'static str],
    /// The words of the error for an unknown user.
    pub of_unknown: &'static [&'static str],
    /// The words of the error for no login.
    pub of_none: &'static [&'static str],
}

/// A backend with a server.
pub trait Remote: Debug + Sync {
    /// Starts a server for one scenario.
    ///
    /// # Errors
    /// When it doesn't start.
    fn start(&self, setup: Setup) -> Result<Box<dyn TestServer>, String>;

    /// Returns how much later than its ttl a lock that isn't renewed ends.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the bytes that only a request of this kind has, for a key.
    fn pattern(&self, request: Request, key: &str) -> String;

    /// Returns true if a proxy knows which reply belongs to a request of its protocol.
    fn is_followed_by_proxies(&self) -> bool {
        false
    }

    /// Returns how long a lock may stay that a late request took for nobody.
    fn takes_back_within(&self) -> Duration;

    /// Returns the login of a server that asks for one.
    fn login(&self) -> Login;

    /// Returns the setting that an error names when the server is full.
    fn size_setting(&self) -> &'static str;
}

/// A running server of one scenario. Dropped, it has ended.
pub trait TestServer: Debug + Send + Sync {
    /// Returns its address.
    fn addr(&self) -> SocketAddr;

    /// Returns its URL, by TLS if it was set up so, and without a login.
    fn url(&self) -> String;

    /// Returns its certificates.
    ///
    /// # Panics
    /// Without TLS.
    fn certs(&self) -> Certs;

    /// Returns its process, if it runs.
    fn process(&self) -> Option<&Process>;

    /// Stops it as a whole: connections stay, and nothing answers.
    ///
    /// # Panics
    /// If it isn't running.
    fn pause(&self) {
        self.process().expect("the server runs").signal(Signal::STOP).expect("a process of ours takes signals");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it isn't running.
    fn resume(&self) {
        self.process().expect("the server runs").signal(Signal::CONT).expect("a process of ours takes signals");
    }

    /// Kills it. What it has written stays.
    fn kill(&mut self);

    /// Starts it again, after killing it if it runs.
    ///
    /// # Errors
    /// When it doesn't start.
    fn restart(&mut self) -> Result<(), String>;

    /// Returns how many connections it has, if a waiter's place goes with its connection. Elsewhere it goes with its ttl.
    fn connections(&self) -> Option<usize> {
        None
    }

    /// Returns who holds and who waits for a lock, in the server's own words and order.
    fn queue(&self, key: &str) -> Vec<String>;

    /// Returns how many hold and wait for a lock, as the server keeps them.
    fn contenders(&self, key: &str) -> usize {
        self.queue(key).len()
    }

    /// Returns the token of a lock's owner, as the server keeps it.
    fn owner(&self, key: &str) -> Option<String>;

    /// Returns the last fencing token that the server gave for a lock that is held.
    fn fence(&self, key: &str) -> Option<u64>;

    /// Returns how long the lock would last if its owner were dead.
    fn time_left(&self, key: &str) -> Duration;

    /// Returns the keys that holders and waiters have at the server, of all locks.
    fn left_over(&self) -> Vec<String>;

    /// Returns the sessions of clients that the server keeps beside their keys.
    fn sessions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns how many requests about locks it has had.
    fn requests(&self) -> u64;

    /// Deletes a lock, whoever holds it and waits for it.
    fn remove(&self, key: &str);

    /// Fills one that is [`small`](Setup::small) until it takes no more.
    fn fill(&self);

    /// Has one that is full take something again.
    fn make_room(&self);
}
