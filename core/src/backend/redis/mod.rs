//! `redis://`, `rediss://`: one Redis or Valkey server, with a queue, hand-over and fencing kept beside the key.
//!
//! The protocol, what it promises and what breaks it: README.md in this folder.

mod connection;
mod contender;
mod error;
mod grant;
mod inbox;
mod inspect;
mod keys;
mod link;
mod orphans;
mod script;

use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, Value};

use self::error::Failure;
use self::grant::RedisGrant;
use self::inbox::Inbox;
use self::keys::Keys;
use self::link::{Answer, Link, PATIENCE};
use self::script::Script;
use crate::config::{Config, OptionSpec, Schema, Scheme, UrlParts, ValueKind, Values, read_servers, write_servers};
use crate::contract::Claim;
use crate::contract::{Backend, Capabilities, Contender, ContenderInfo, Context, Driver, DueLease, Renewal, downcast};
use crate::error::{Error, Result, show};
use crate::net::Address;
use crate::runtime::BoxFuture;

const PORT: u16 = 6379;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver =
    Driver { schema: &SCHEMA, capabilities, connect: |config, context| Ok(Arc::new(Redis::new(config, context)?)) };

/// The names and options of the backend.
pub static SCHEMA: Schema = Schema {
    name: "redis",
    schemes: &[
        Scheme { name: "redis", tls: false, mode: Some("single") },
        Scheme { name: "rediss", tls: true, mode: Some("single") },
    ],
    options: &[
        OptionSpec::of_service("addrs", ValueKind::List),
        OptionSpec::of_service("username", ValueKind::Text),
        OptionSpec { secret: true, ..OptionSpec::of_service("password", ValueKind::Text) },
        OptionSpec::of_service("db", ValueKind::Count),
        OptionSpec::of_service("mode", ValueKind::Choice(&["single"])),
        OptionSpec { url: true, ..OptionSpec::of_service("tls", ValueKind::Flag) },
    ],
    service: true,
    parts,
    authority,
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
        min_ttl: Duration::from_millis(100),
        guarantee: "one server's memory and clock",
    }
}

fn parts(parts: &UrlParts, values: &mut Values) -> Result<()> {
    read_servers(parts, values, "addrs", PORT);
    match parts.path.trim_start_matches('/') {
        "" => Ok(()),
        db => {
            let number = db.parse().map_err(|_| {
                Error::invalid("the path of a redis URL is the number of its database: redis://localhost:6379/0")
            })?;
            values.set("db", crate::config::Value::Count(number));
            Ok(())
        }
    }
}

fn authority(values: &Values) -> String {
    let db = values.count("db").map(|db| format!("/{db}")).unwrap_or_default();
    format!("{}{db}", write_servers(values, "addrs", PORT))
}

/// The locks of one server.
#[derive(Debug)]
struct Redis {
    link: Arc<Link>,
}

impl Redis {
    fn new(config: &Config, context: Context) -> Result<Self> {
        let address = match config.values().list("addrs").unwrap_or_default() {
            [] => "localhost",
            [one] => one,
            several => {
                return Err(Error::invalid(format!(
                    "{} addresses are given, but one Redis has one: give the others to clients of their own",
                    several.len()
                )));
            }
        };
        let address = Address::new(address, PORT, config)?;
        Ok(Self { link: Arc::new(Link::new(address, config.clone(), Inbox::new(context))) })
    }

    /// Runs a script on the keys of one lock.
    async fn run_on(&self, script: Script, name: &str) -> Result<Answer> {
        let keys = Keys::new(name);
        let limits = self.link.limits(PATIENCE);
        let keys = |_: &link::Sent, cmd: &mut redis::Cmd| {
            keys.add_to(cmd);
        };
        self.link.run(script, limits, keys).await.map_err(|failure| failure.error)
    }
}

/// Reads the value of an answer.
fn read<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    redis::from_redis_value(value).map_err(|why| {
        Failure::refused(Error::refused(format!("Redis answered what was not expected: {why}; is it a Redis?")))
    })
}

/// Returns the error for a script's answer `T type key`: the key belongs to another program.
fn no_lock(value: &Value) -> Option<Error> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(what), kind, key] = parts.as_slice() else { return None };
    let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).unwrap_or_default();
    let (kind, key) = (text(kind), text(key));
    (what == b"T").then(|| {
        Error::refused(match keys::check(&key) {
            Ok(()) => format!(
                "the key {} holds a {kind}, which is no lock: use another key or a prefix, or delete it",
                show(&key)
            ),
            Err(_) => format!(
                "the key {}, which dlock keeps beside the lock, holds a {kind} of another program: rename or delete \
                 that, or use another key for the lock",
                show(&key)
            ),
        })
    })
}

impl Backend for Redis {
    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn name_of(&self, key: &str) -> Result<String> {
        keys::check(key)?;
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(contender::RedisContender::new(self.link.clone(), claim))
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            let held: Result<Vec<_>> =
                due.iter().map(|due| Ok((downcast::<RedisGrant>(&due.grant)?, due.ttl))).collect();
            match held {
                Ok(held) => grant::renew(&self.link, &held).await,
                Err(error) => due.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async move {
            let answer = self.run_on(Script::Inspect, name).await?;
            if let Some(error) = no_lock(&answer.value) {
                return Err(error);
            }
            inspect::contenders(answer.value).map_err(|failure| failure.error)
        })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let answer = self.run_on(Script::Break, name).await?;
            if let Some(error) = no_lock(&answer.value) {
                return Err(error);
            }
            Ok(read::<i64>(answer.value).map_err(|failure| failure.error)? == 1)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let limits = self.link.limits(PATIENCE);
            let answer = self.link.ask(limits, |_, _, _| redis::cmd("PING")).await;
            answer.map(drop).map_err(|failure| failure.error)
        })
    }
}
