//! `zookeeper://`, `zookeepers://`: one ZooKeeper ensemble, with the nodes of kazoo's and Curator's locks.
//!
//! The protocol, what it promises and what breaks it: README.md in this folder.

mod connection;
mod contender;
mod error;
mod grant;
mod inspect;
mod jute;
mod keys;
mod orphans;
mod permits;
mod place;
mod protocol;
mod session;
mod shared;
mod watch;

use std::sync::Arc;

use self::grant::ZooKeeperGrant;
use self::protocol::Request;
use self::session::{PORT, Session};
use self::shared::{MIN_TTL, ZooKeeper};
use crate::config::{
    OptionSpec, Schema, Scheme, UrlParts, Value, ValueKind, Values, encode_path, read_servers, write_servers,
};
use crate::contract::{Backend, Capabilities, Claim, Contender, ContenderInfo, Driver, DueLease, Renewal};
use crate::error::Result;
use crate::runtime::BoxFuture;
use crate::timing::PATIENCE;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver =
    Driver { schema: &SCHEMA, capabilities, connect: |config, context| Ok(Arc::new(ZooKeeper::new(config, context)?)) };

/// The names and options of the backend.
pub static SCHEMA: Schema = Schema {
    name: "zookeeper",
    schemes: &[
        Scheme { name: "zookeeper", tls: false, mode: None },
        Scheme { name: "zookeepers", tls: true, mode: None },
    ],
    options: &[
        OptionSpec::of_service("servers", ValueKind::List),
        OptionSpec { url: true, ..OptionSpec::of_service("session_timeout", ValueKind::Time) },
        OptionSpec { url: true, ..OptionSpec::of_service("prefix", ValueKind::Text) },
        OptionSpec { env: false, ..OptionSpec::of_service("username", ValueKind::Text) },
        OptionSpec { env: false, secret: true, ..OptionSpec::of_service("password", ValueKind::Text) },
        OptionSpec { env: false, ..OptionSpec::of_service("chroot", ValueKind::Text) },
        OptionSpec {
            env: false,
            url: true,
            ..OptionSpec::of_service("dialect", ValueKind::Choice(&["kazoo", "curator"]))
        },
        OptionSpec { env: false, url: true, ..OptionSpec::of_service("tls", ValueKind::Flag) },
    ],
    service: true,
    parts,
    authority: |values| {
        let chroot = values.text("chroot").map(encode_path).unwrap_or_default();
        format!("{}{chroot}", write_servers(values, "servers", PORT))
    },
};

fn capabilities(values: &Values) -> Capabilities {
    Capabilities {
        fence: true,
        ttl: true,
        fifo: true,
        shared: true,
        // Curator has the holders of a semaphore in a queue of their own.
        permits: values.text("dialect") != Some("curator"),
        handoff: false,
        processes: true,
        fork: true,
        local: false,
        min_ttl: MIN_TTL,
        guarantee: "a majority of the servers, and how fast their clocks run",
    }
}

fn parts(parts: &UrlParts, values: &mut Values) -> Result<()> {
    read_servers(parts, values, "servers", PORT);
    if !matches!(parts.path.as_str(), "" | "/") {
        values.set("chroot", Value::Text(parts.path.clone()));
    }
    Ok(())
}

impl ZooKeeper {
    /// Returns a session to ask by: the one of the default ttl.
    async fn asking(&self) -> Result<Arc<Session>> {
        let ttl = self.sessions.default_ttl();
        Ok(self.sessions.pick(ttl, false, self.sessions.limits(PATIENCE)).await?)
    }
}

impl Backend for ZooKeeper {
    fn name_of(&self, key: &str) -> Result<String> {
        keys::directory(self.dialect, &self.prefix, key)
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(contender::ZooKeeperContender::new(self, claim))
    }

    /// Returns no limit: one request renews any number of locks.
    fn renew_limit(&self) -> usize {
        usize::MAX
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            match DueLease::downcast_all::<ZooKeeperGrant>(due) {
                Ok(grants) => grant::renew(self, &grants).await,
                Err(error) => vec![Err(error); due.len()],
            }
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async move {
            let session = self.asking().await?;
            Ok(inspect::contenders(&session, name, self.sessions.limits(PATIENCE)).await?)
        })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let session = self.asking().await?;
            Ok(inspect::break_lock(&session, name, self.sessions.limits(PATIENCE)).await?)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move {
            let session = self.asking().await?;
            Ok(inspect::keys(&session, &self.prefix, prefix, self.sessions.limits(PATIENCE)).await?)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let session = self.asking().await?;
            let sync = Request::Sync { path: self.sessions.root().to_owned() };
            Ok(session.ask(sync, self.sessions.limits(PATIENCE)).await.map(drop)?)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.sessions.close())
    }
}
