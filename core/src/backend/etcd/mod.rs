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
mod listener;
mod mutex;
mod orphans;
mod request;
mod session;
mod shared;
mod watch;
mod watch_stream;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::GetOptions;

use self::grant::EtcdGrant;
use self::shared::{Etcd, PORT};
use crate::config::{OptionSpec, Schema, Scheme, UrlParts, ValueKind, Values, read_servers, write_servers};
use crate::contract::{Backend, Capabilities, Claim, Contender, ContenderInfo, Driver, DueLease, Renewal};
use crate::error::{Error, Result};
use crate::runtime::BoxFuture;
use crate::timing::PATIENCE;

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

fn capabilities(_: &Values) -> Capabilities {
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

impl Backend for Etcd {
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
            match DueLease::downcast_all::<EtcdGrant>(due) {
                Ok(grants) => grant::renew(self, &grants).await,
                Err(error) => vec![Err(error); due.len()],
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

    fn diagnose(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move {
            self.ping().await?;
            Ok(inspect::alarms(&self.link, self.link.limits(PATIENCE)).await)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move { Ok(inspect::names(&self.link, prefix, self.link.limits(PATIENCE)).await?) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.sessions.close())
    }
}
