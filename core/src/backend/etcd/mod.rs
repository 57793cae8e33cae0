//! `etcd://`, `etcds://`: one etcd cluster, with the queue and the keys of etcd's own mutex.
//!
//! The protocol, what it promises and what breaks it: README.md in this folder.

mod coalesce;
mod connection;
mod contender;
mod error;
mod floors;
mod grant;
mod inspect;
mod keys;
mod link;
mod mutex;
mod orphans;
mod session;
mod watch;
mod watch_stream;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::GetOptions;

use self::floors::Floors;
use self::grant::EtcdGrant;
use self::link::{Link, PATIENCE};
use self::session::Sessions;
use self::watch::Watches;
use crate::config::{Config, OptionSpec, Schema, Scheme, UrlParts, ValueKind, Values, read_servers, write_servers};
use crate::contract::Claim;
use crate::contract::{Backend, Capabilities, Contender, ContenderInfo, Context, Driver, DueLease, Renewal, downcast};
use crate::error::{Error, Result};
use crate::net::Address;
use crate::runtime::BoxFuture;

const PORT: u16 = 2379;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver =
    Driver { schema: &SCHEMA, capabilities, connect: |config, context| Ok(Arc::new(Etcd::new(config, context)?)) };

/// The names and options of the backend.
pub static SCHEMA: Schema = Schema {
    name: "etcd",
    schemes: &[Scheme { name: "etcd", tls: false, mode: None }, Scheme { name: "etcds", tls: true, mode: None }],
    options: &[
        OptionSpec::of_service("endpoints", ValueKind::List),
        OptionSpec::of_service("username", ValueKind::Text),
        OptionSpec { secret: true, ..OptionSpec::of_service("password", ValueKind::Text) },
        OptionSpec { url: true, ..OptionSpec::of_service("dial_timeout", ValueKind::Time) },
        OptionSpec { url: true, ..OptionSpec::of_service("tls", ValueKind::Flag) },
    ],
    service: true,
    parts,
    authority: |values| write_servers(values, "endpoints", PORT),
};

fn capabilities() -> Capabilities {
    Capabilities {
        fence: true,
        ttl: true,
        fifo: true,
        shared: false,
        permits: false,
        handoff: false,
        processes: true,
        fork: true,
        local: false,
        // The minimum that a server with the default configuration grants.
        min_ttl: Duration::from_secs(2),
        guarantee: "a majority of the members, and how fast their clocks run",
    }
}

fn parts(parts: &UrlParts, values: &mut Values) -> Result<()> {
    read_servers(parts, values, "endpoints", PORT);
    match parts.path.as_str() {
        "" | "/" => Ok(()),
        _ => Err(Error::invalid(
            "an etcd URL has no path: put ?prefix= before all keys, as in etcd://localhost?prefix=app/",
        )),
    }
}

/// The locks of one cluster, for one client.
#[derive(Debug)]
struct Etcd {
    link: Arc<Link>,
    sessions: Sessions,
    watches: Arc<Watches>,
    floors: Floors,
}

impl Etcd {
    fn new(config: &Config, context: Context) -> Result<Self> {
        let values = config.values();
        if values.contains("password") && !values.contains("username") {
            return Err(Error::invalid("a password is given without a username: give both, or neither"));
        }
        let address = |text: &str| Ok(Address::new(text, PORT, config)?.with_alpn(b"h2"));
        let addresses: Result<Vec<_>> = match values.list("endpoints").unwrap_or_default() {
            [] => [address("localhost")].into_iter().collect(),
            endpoints => endpoints.iter().map(|endpoint| address(endpoint)).collect(),
        };
        let link = Arc::new(Link::new(addresses?, config.clone()));
        let watches = Arc::new(Watches::new(link.clone(), context));
        Ok(Self { sessions: Sessions::new(link.clone()), link, watches, floors: Floors::default() })
    }
}

impl Backend for Etcd {
    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn name_of(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(contender::EtcdContender::new(self, claim))
    }

    /// Returns no limit: one keep-alive renews any number of locks.
    fn renew_limit(&self) -> usize {
        usize::MAX
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            let held: Result<Vec<_>> =
                due.iter().map(|due| Ok((downcast::<EtcdGrant>(&due.grant)?, due.ttl))).collect();
            match held {
                Ok(held) => grant::renew(self, &held).await,
                Err(error) => due.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async move { Ok(inspect::contenders(&self.link, name, self.link.limits(PATIENCE)).await?) })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { Ok(inspect::break_lock(&self.link, name, self.link.limits(PATIENCE)).await?) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // A read that needs the majority. Its result doesn't matter.
            let count = GetOptions::new().with_count_only();
            Ok(mutex::get(&self.link, self.link.limits(PATIENCE), b"/", &count).await.map(drop)?)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.sessions.close())
    }
}
