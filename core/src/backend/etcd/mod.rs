//! `etcd://`, `etcds://`: one etcd cluster, with the queue and the keys of etcd's own mutex.
//!
//! The protocol, what it promises and what breaks it: README.md in this folder.

mod connect;
mod cork;
mod error;
mod floors;
mod grant;
mod link;
mod look;
mod name;
mod request;
mod session;
mod stream;
mod unsettled;
mod wait;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::GetOptions;

use self::floors::Floors;
use self::grant::Held;
use self::link::{Link, PATIENCE};
use self::session::Sessions;
use self::watch::Watches;
use super::{Alarm, Backend, BoxFuture, Capability, Contender, Driver, Due, Holder, Renewal};
use crate::claim::Claim;
use crate::config::{Config, Opt, Parts, Scheme, Values, Want, read_servers, write_servers};
use crate::error::{Error, Result};
use crate::net::Address;

const PORT: u16 = 2379;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver = Driver {
    name: "etcd",
    schemes: &[Scheme { name: "etcd", tls: false, mode: None }, Scheme { name: "etcds", tls: true, mode: None }],
    options: &[
        Opt::of_service("endpoints", Want::List),
        Opt::of_service("username", Want::Text),
        Opt { secret: true, ..Opt::of_service("password", Want::Text) },
        Opt { url: true, ..Opt::of_service("dial_timeout", Want::Time) },
        Opt { url: true, ..Opt::of_service("tls", Want::Flag) },
    ],
    service: true,
    parts,
    authority: |values| write_servers(values, "endpoints", PORT),
    capability,
    connect: |config, alarm| Ok(Arc::new(Etcd::new(config, alarm)?)),
};

fn capability() -> Capability {
    Capability {
        fence: true,
        ttl: true,
        fifo: true,
        shared: false,
        permits: false,
        handoff: false,
        processes: true,
        fork: true,
        local: false,
        // The least that a server of the ordinary configuration grants.
        min_ttl: Duration::from_secs(2),
        guarantee: "a majority of the members, and how fast their clocks run",
    }
}

fn parts(parts: &Parts, values: &mut Values) -> Result<()> {
    read_servers(parts, values, "endpoints", PORT);
    match parts.path.as_str() {
        "" | "/" => Ok(()),
        _ => Err(Error::invalid(
            "an etcd URL has no path: put ?prefix= before all keys, as in etcd://localhost?prefix=app/",
        )),
    }
}

/// One client's part.
#[derive(Debug)]
struct Etcd {
    link: Arc<Link>,
    sessions: Sessions,
    watches: Arc<Watches>,
    floors: Floors,
}

impl Etcd {
    fn new(config: &Config, alarm: Alarm) -> Result<Self> {
        let values = config.values();
        if values.contains("password") && !values.contains("username") {
            return Err(Error::invalid("a password is given without a username: give both, or neither"));
        }
        let address = |text: &str| Ok(Address::new(text, PORT, config)?.speaking(b"h2"));
        let addresses: Result<Vec<_>> = match values.list("endpoints").unwrap_or_default() {
            [] => [address("localhost")].into_iter().collect(),
            endpoints => endpoints.iter().map(|endpoint| address(endpoint)).collect(),
        };
        let link = Arc::new(Link::new(addresses?, config.clone()));
        let watches = Arc::new(Watches::new(link.clone(), alarm));
        Ok(Self { sessions: Sessions::new(link.clone()), link, watches, floors: Floors::default() })
    }
}

impl Backend for Etcd {
    fn capability(&self) -> Capability {
        capability()
    }

    fn encode(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(wait::Waiter::new(self, claim))
    }

    /// Whatever number has one lease: it is asked for once.
    fn batch(&self) -> usize {
        usize::MAX
    }

    fn renew<'a>(&'a self, due: &'a [Due]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            let held: Result<Vec<_>> = due.iter().map(|due| Ok((super::own::<Held>(&due.grant)?, due.ttl))).collect();
            match held {
                Ok(held) => grant::renew(self, &held).await,
                Err(error) => due.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn holders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Holder>>> {
        Box::pin(async move { Ok(look::holders(&self.link, name, self.link.limits(PATIENCE)).await?) })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { Ok(look::break_lock(&self.link, name, self.link.limits(PATIENCE)).await?) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // A read that needs the majority; what it reads doesn't matter.
            let count = GetOptions::new().with_count_only();
            Ok(request::get(&self.link, self.link.limits(PATIENCE), b"/", &count).await.map(drop)?)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.sessions.close())
    }
}
