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
mod orphans;
mod request;
mod script;

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use self::connection::{Link, Shared};
use self::grant::RedisGrant;
use self::keys::Keys;
use self::request::Answer;
use self::script::{Script, no_lock, read};
use crate::clock::Instant;
use crate::config::{Config, OptionSpec, Schema, Scheme, UrlParts, ValueKind, Values, read_servers, write_servers};
use crate::contract::{Backend, Capabilities, Claim, Contender, ContenderInfo, Context, Driver, DueLease, Renewal};
use crate::error::{Error, Result};
use crate::net::address::Address;
use crate::net::failure::owner_changes;
use crate::runtime::BoxFuture;
use crate::timing::PATIENCE;

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
        let shared = Shared::new(context, orphans::take_back);
        Ok(Self { link: Arc::new(Link::new(vec![address], config.clone(), shared)) })
    }

    /// Runs a script on the keys of one lock.
    async fn run_on(&self, script: Script, name: &str, args: &[&[u8]]) -> Result<Answer> {
        let keys = Keys::new(name);
        let limits = self.link.limits(PATIENCE);
        let keys = |_: &request::Sent, cmd: &mut redis::Cmd| {
            keys.add_to(cmd);
            cmd.arg(args);
        };
        Ok(self.link.run(script, limits, keys).await?)
    }
}

impl Backend for Redis {
    fn name_of(&self, key: &str) -> Result<String> {
        keys::check(key)?;
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(contender::RedisContender::new(self.link.clone(), claim))
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            match DueLease::downcast_all::<RedisGrant>(due) {
                Ok(grants) => grant::renew(&self.link, &grants).await,
                Err(error) => vec![Err(error); due.len()],
            }
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async move {
            let answer = self.run_on(Script::Inspect, name, &[]).await?;
            if let Some(error) = no_lock(&answer.value) {
                return Err(error);
            }
            inspect::contenders(answer.value)
        })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let end = Instant::now().plus(self.link.config.connect_timeout());
            let mut seen: Vec<Vec<u8>> = Vec::new();
            loop {
                let args: Vec<_> = seen.iter().map(Vec::as_slice).collect();
                let answer = self.run_on(Script::Break, name, &args).await?;
                if let Some(error) = no_lock(&answer.value) {
                    return Err(error);
                }
                // A sending without an answer may have done it before this one.
                let may_be_done = !seen.is_empty() && !answer.unanswered.is_empty();
                match answer.value {
                    Value::Int(broken) => return Ok(broken == 1 || may_be_done),
                    _ if may_be_done => return Ok(true),
                    _ if end.passed() => return Err(owner_changes(name)),
                    // The lock has an owner, or another one by now.
                    owner => seen = read(owner)?,
                }
            }
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.diagnose().await.map(drop) })
    }

    /// Returns what the connection that answers has found when it was made.
    fn diagnose(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move {
            let answer = self.link.ask(self.link.limits(PATIENCE), |_, _, _| redis::cmd("PING")).await?;
            Ok(answer.conn.findings.clone())
        })
    }
}
