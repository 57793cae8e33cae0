//! `redis://`, `rediss://`: one Redis or Valkey server, with a queue, hand-over and fencing kept beside the key.
//!
//! The protocol, what it promises and what breaks it: README.md in this folder.

mod connect;
mod error;
mod grant;
mod link;
mod look;
mod name;
mod post;
mod reaper;
mod script;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, Value};

use self::error::Failure;
use self::grant::Held;
use self::link::{Answer, Link, PATIENCE};
use self::name::Names;
use self::post::Post;
use self::script::Script;
use super::{Alarm, Backend, BoxFuture, Capability, Contender, Driver, Due, Holder, Renewal};
use crate::claim::Claim;
use crate::config::{Config, Opt, Parts, Scheme, Values, Want, read_servers, write_servers};
use crate::error::{Error, Result, show};
use crate::net::Address;

const PORT: u16 = 6379;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver = Driver {
    name: "redis",
    schemes: &[
        Scheme { name: "redis", tls: false, mode: Some("single") },
        Scheme { name: "rediss", tls: true, mode: Some("single") },
    ],
    options: &[
        Opt::of_service("addrs", Want::List),
        Opt::of_service("username", Want::Text),
        Opt { secret: true, ..Opt::of_service("password", Want::Text) },
        Opt::of_service("db", Want::Count),
        Opt::of_service("mode", Want::Choice(&["single"])),
        Opt { url: true, ..Opt::of_service("tls", Want::Flag) },
    ],
    service: true,
    parts,
    authority,
    capability,
    connect: |config, alarm| Ok(Arc::new(Redis::new(config, alarm)?)),
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
        min_ttl: Duration::from_millis(100),
        guarantee: "one server's memory and clock",
    }
}

fn parts(parts: &Parts, values: &mut Values) -> Result<()> {
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

#[derive(Debug)]
struct Redis {
    link: Arc<Link>,
}

impl Redis {
    fn new(config: &Config, alarm: Alarm) -> Result<Self> {
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
        Ok(Self { link: Arc::new(Link::new(address, config.clone(), Post::new(alarm))) })
    }

    async fn run_on(&self, script: Script, name: &str) -> Result<Answer> {
        let names = Names::new(name);
        let limits = self.link.limits(PATIENCE);
        let keys = |_: &link::Sent, cmd: &mut redis::Cmd| {
            names.add_to(cmd);
        };
        self.link.run(script, limits, keys).await.map_err(|failure| failure.error)
    }
}

/// The value that an answer stands for.
fn read<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    redis::from_redis_value(value).map_err(|why| {
        Failure::refused(Error::backend(format!("Redis answered what was not expected: {why}; is it a Redis?")))
    })
}

/// The error for a script's answer `T type key`: another program keeps something of its own there.
fn no_lock(value: &Value) -> Option<Error> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(what), kind, key] = parts.as_slice() else { return None };
    let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).unwrap_or_default();
    let (kind, key) = (text(kind), text(key));
    (what == b"T").then(|| {
        Error::backend(match name::check(&key) {
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
    fn capability(&self) -> Capability {
        capability()
    }

    fn encode(&self, key: &str) -> Result<String> {
        name::check(key)?;
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(wait::Waiter::new(self.link.clone(), claim))
    }

    fn renew<'a>(&'a self, due: &'a [Due]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            let held: Result<Vec<_>> = due.iter().map(|due| Ok((super::own::<Held>(&due.grant)?, due.ttl))).collect();
            match held {
                Ok(held) => grant::renew(&self.link, &held).await,
                Err(error) => due.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn holders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Holder>>> {
        Box::pin(async move {
            let answer = self.run_on(Script::Look, name).await?;
            if let Some(error) = no_lock(&answer.value) {
                return Err(error);
            }
            look::holders(answer.value).map_err(|failure| failure.error)
        })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let answer = self.run_on(Script::Force, name).await?;
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
