//! The functions that a fault scenario needs for a backend with a server: to start the server, to break it, and to read
//! its raw data.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use dlock::Lease;
use rustix::process::Signal;

use crate::server::Certs;
use crate::server::process::Process;

/// A fault that some backends can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A server behind a network. It stops, dies and comes back, and requests and replies are lost or late.
    Server,
    /// A server that can take no more data.
    Full,
    /// A lock that somebody else deletes, and no other lock of its holder.
    Deletion,
    /// A connection that is lost and made again without the loss of a lock.
    Reconnect,
    /// A holder and waiters whose names the server knows.
    Names,
    /// A server that comes back without its data and continues without it.
    DataLoss,
}

impl Fault {
    /// Returns the fault's word in `tests/faults/skips.txt`, after `needs:`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Full => "full",
            Self::Deletion => "deletion",
            Self::Reconnect => "reconnect",
            Self::Names => "names",
            Self::DataLoss => "data-loss",
        }
    }
}

/// A request that a proxy can distinguish from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A request for a lock.
    Acquire,
    /// A release of a lock.
    Release,
}

/// The options with which a server is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// True if everything that the server has confirmed is there after a restart.
    pub durable: bool,
    /// True if the server asks for the login of [`Remote::login`].
    pub login: bool,
    /// True if the server serves TLS, and its URL is the one for TLS.
    pub tls: bool,
    /// True if the server can be filled within a moment, see [`TestServer::fill`].
    pub small: bool,
}

/// A login, and the words of the errors for wrong logins.
#[derive(Clone, Copy, Debug)]
pub struct Login {
    /// The user and the password, as in a URL.
    pub right: &'static str,
    /// The same user with another password.
    pub wrong: &'static str,
    /// The part of both logins that no text may show.
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
    /// If the server doesn't start.
    fn start(&self, setup: Setup) -> Result<Box<dyn TestServer>, String>;

    /// Returns the time by which a lock that isn't renewed outlives its ttl.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns the bytes that only this kind of request has, for a key.
    fn pattern(&self, request: Request, key: &str) -> String;

    /// Returns true if a proxy knows the reply to each request of this protocol.
    fn is_followed_by_proxies(&self) -> bool {
        false
    }

    /// Returns the time for which a lock may stay that a late request took when no caller wanted it any more.
    fn takes_back_within(&self) -> Duration;

    /// Returns the login of a server that asks for a login.
    fn login(&self) -> Login;

    /// Returns the name of the setting that an error for a full server contains.
    fn size_setting(&self) -> &'static str;
}

/// A running server of one scenario. When it is dropped, the server ends.
pub trait TestServer: Debug + Send + Sync {
    /// Returns the server's address.
    fn addr(&self) -> SocketAddr;

    /// Returns the server's URL without a login. The URL is that of TLS if the server was set up so.
    fn url(&self) -> String;

    /// Returns the server's certificates.
    ///
    /// # Panics
    /// If the server has no TLS.
    fn certs(&self) -> Certs;

    /// Returns the server's process, if it runs.
    fn process(&self) -> Option<&Process>;

    /// Pauses the whole server: connections stay, and nothing answers.
    ///
    /// # Panics
    /// If the server isn't running.
    fn pause(&self) {
        self.process().expect("the server runs").signal(Signal::STOP).expect("a process of ours takes signals");
    }

    /// Resumes a paused server.
    ///
    /// # Panics
    /// If the server isn't running.
    fn resume(&self) {
        self.process().expect("the server runs").signal(Signal::CONT).expect("a process of ours takes signals");
    }

    /// Kills the server. The data that it has written stay.
    fn kill(&mut self);

    /// Starts the server again, after killing it if it runs.
    ///
    /// # Errors
    /// If the server doesn't start.
    fn restart(&mut self) -> Result<(), String>;

    /// Returns the number of connections, if a waiter's place in the queue ends with its connection. Otherwise that
    /// place ends by the ttl.
    fn connections(&self) -> Option<usize> {
        None
    }

    /// Returns the holder and the waiters of a lock, in the server's own words and order.
    fn queue(&self, key: &str) -> Vec<String>;

    /// Returns the number of holders and waiters of a lock, as the server keeps them.
    fn contenders(&self, key: &str) -> usize {
        self.queue(key).len()
    }

    /// Returns the token of a lock's owner, as the server keeps it.
    fn owner(&self, key: &str) -> Option<String>;

    /// Returns the last fencing token that the server gave for a held lock.
    fn fence(&self, key: &str) -> Option<u64>;

    /// Returns true if the server keeps this lease as the holder of the lock.
    fn is_held_by(&self, key: &str, lease: &Lease) -> bool {
        self.owner(key) == Some(lease.token()) && self.fence(key) == lease.fence()
    }

    /// Returns the time for which the lock would last if its owner were dead.
    fn time_left(&self, key: &str) -> Duration;

    /// Returns the keys that holders and waiters of all locks have at the server.
    fn left_over(&self) -> Vec<String>;

    /// Returns the sessions of clients that the server keeps beside the keys.
    fn sessions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the number of requests about locks that the server has received.
    fn requests(&self) -> u64;

    /// Deletes a lock with its holder and its waiters.
    fn remove(&self, key: &str);

    /// Fills a [`small`](Setup::small) server until it accepts no more data.
    fn fill(&self);

    /// Makes a full server accept data again.
    fn make_room(&self);
}
