//! The parts of the backend that contenders and grants share.

use std::sync::Arc;

use super::connection::Link;
use super::floors::Floors;
use super::session::Sessions;
use super::watch::Watches;
use crate::config::Config;
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::net::address::Address;

/// The default port of a server.
pub(super) const PORT: u16 = 2379;

/// The locks of one cluster, for one client.
#[derive(Debug)]
pub(super) struct Etcd {
    pub(super) link: Arc<Link>,
    pub(super) sessions: Sessions,
    pub(super) watches: Arc<Watches>,
    pub(super) floors: Floors,
}

impl Etcd {
    /// Reads the configuration. No I/O.
    pub(super) fn new(config: &Config, context: Context) -> Result<Self> {
        let values = config.values();
        if values.contains("password") && !values.contains("username") {
            return Err(Error::invalid("a password is given without a username: give both, or neither"));
        }
        let address = |text: &str| Ok(Address::new(text, PORT, config)?.with_alpn(b"h2"));
        let addresses: Result<Vec<_>> = match values.list("endpoints").unwrap_or_default() {
            [] => [address("localhost")].into_iter().collect(),
            endpoints => endpoints.iter().map(|endpoint| address(endpoint)).collect(),
        };
        let link = Arc::new(Link::new(addresses?, config.clone(), ()));
        let watches = Arc::new(Watches::new(link.clone(), context));
        Ok(Self { sessions: Sessions::new(link.clone()), link, watches, floors: Floors::default() })
    }
}
