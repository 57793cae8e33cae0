//! How a server is to be started.

#[cfg(doc)]
use super::{Etcd, Redis};

/// How a [`Redis`] is to be started. Without options: no password, no persistence, 127.0.0.1 on a free port.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    pub(super) port: Option<u16>,
    pub(super) fsync: Option<String>,
    pub(super) password: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) tls: bool,
    pub(super) unix: bool,
    pub(super) clock: bool,
}

impl RedisOptions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// This port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Keeps a log of all changes, written out `always`, `everysec` or `no`.
    pub fn appendonly(mut self, fsync: &str) -> Self {
        self.fsync = Some(fsync.to_owned());
        self
    }

    /// Asks for this password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Listens with TLS as well, see [`Redis::tls`]; a client's certificate is looked at if it has one.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Listens on a socket file as well, see [`Redis::unix_path`].
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Gives it a wall clock of its own, see [`Redis::step_clock`]. Linux only.
    pub fn clock(mut self) -> Self {
        self.clock = true;
        self
    }

    /// More arguments of redis-server, which win over all others.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }
}

/// How an [`Etcd`] is to be started.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    pub(super) args: Vec<String>,
    pub(super) tls: bool,
}

impl EtcdOptions {
    /// 127.0.0.1 on a free port, no login.
    pub fn new() -> Self {
        Self::default()
    }

    /// More arguments of etcd, which win over all others.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Serves clients by TLS only, see [`Etcd::certs`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}
