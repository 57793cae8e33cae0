//! `memory://name`: a lock inside this process, and the specification for every other backend.

mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub use table::{Table, Taken};

use crate::clock::Instant;
use crate::config::{Config, OptionSpec, Schema, Scheme, UrlParts, Value, ValueKind, Values};
use crate::contract::Claim;
use crate::contract::{
    Attempt, Backend, Capabilities, Contender, ContenderInfo, Driver, DueLease, Grant, Mode, Released, Renewal,
    RetryHint,
};
use crate::error::{Error, Result};
use crate::runtime::{BoxFuture, PerProcess};
use crate::timing;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver =
    Driver { schema: &SCHEMA, capabilities, connect: |config, _| Ok(Arc::new(Memory { table: shared(config) })) };

/// The names and options of the backend.
pub static SCHEMA: Schema = Schema {
    name: "memory",
    schemes: &[Scheme { name: "memory", tls: false, mode: None }],
    options: &[OptionSpec { name: "name", kind: ValueKind::Text, secret: false, env: false, yaml: false, url: false }],
    service: false,
    parts,
    authority: |values| values.text("name").unwrap_or_default().to_owned(),
};

fn capabilities(_: &Values) -> Capabilities {
    Capabilities {
        fence: true,
        ttl: false,
        fifo: true,
        shared: true,
        permits: true,
        handoff: false,
        processes: false,
        fork: true,
        local: true,
        min_ttl: Duration::from_millis(100),
        guarantee: "a table in this process",
    }
}

fn parts(parts: &UrlParts, values: &mut Values) -> Result<()> {
    if parts.hosts.len() > 1 || parts.user.is_some() || !matches!(parts.path.as_str(), "" | "/") {
        return Err(Error::invalid("memory:// takes a name and nothing else: memory://name"));
    }
    match parts.hosts.first() {
        Some((_, Some(port))) => Err(Error::invalid(format!("memory:// takes no port, but :{port} was given"))),
        Some((name, None)) if !name.is_empty() => {
            values.set("name", Value::Text(name.clone()));
            Ok(())
        }
        _ => Ok(()),
    }
}

type Locked = Mutex<Table>;

/// Returns the table of this name, one for each process, whatever else the clients' configurations say. It stays after
/// the last client, so that its fences continue.
fn shared(config: &Config) -> &'static Locked {
    static TABLES: PerProcess<Mutex<HashMap<String, &'static Locked>>> = PerProcess::new();
    let name = config.values().text("name").unwrap_or_default().to_owned();
    let mut tables = TABLES.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    tables.entry(name).or_insert_with(|| Box::leak(Box::default()))
}

/// The locks of one table.
#[derive(Debug)]
struct Memory {
    table: &'static Locked,
}

/// A lock that a claim holds.
#[derive(Debug)]
struct MemoryGrant {
    table: &'static Locked,
    name: Arc<str>,
    nonce: u64,
    fence: u64,
    slots: Vec<u32>,
    unexpiring: bool,
}

/// A claim that asks for its lock.
struct MemoryContender {
    backend: Arc<Memory>,
    claim: Claim,
    wake: Arc<Notify>,
}

fn open(table: &'static Locked) -> MutexGuard<'static, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Tries once.
    fn acquire(&self, claim: &Claim, wake: Option<&Arc<Notify>>) -> Attempt {
        let now = Instant::now();
        let options = &claim.options;
        // A renewed lock lasts as long as the process keeps it.
        let expires = if options.auto_renew { Instant::NEVER } else { now.plus(options.ttl) };
        // Without a waker this is the caller's first, quick try, which doesn't queue.
        let queue = claim.wait && wake.is_some();
        let mut table = open(self.table);
        match table.take(now, claim, expires, queue, wake) {
            Taken::Granted(fence) => {
                let slots = match options.mode {
                    Mode::Permits { .. } => table.slots(&options.name, claim.nonce),
                    _ => Vec::new(),
                };
                drop(table);
                let held = MemoryGrant {
                    table: self.table,
                    name: options.name.clone(),
                    nonce: claim.nonce,
                    fence,
                    slots,
                    unexpiring: options.auto_renew,
                };
                Attempt::Granted { grant: Arc::new(held), since: now, ttl: options.ttl }
            }
            Taken::Busy(until) => {
                let on = wake
                    .cloned()
                    .map(|wake| -> BoxFuture<'static, ()> { Box::pin(async move { wake.notified().await }) });
                Attempt::Busy(RetryHint { after: until.left().min(timing::queue_refresh(options.ttl)), on })
            }
        }
    }
}

impl Backend for Memory {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn try_now(&self, claim: &Claim) -> Option<Result<Attempt>> {
        Some(Ok(self.acquire(claim, None)))
    }

    fn renews(&self) -> bool {
        false
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(MemoryContender { backend: self, claim, wake: Arc::default() })
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        let now = Instant::now();
        let mut table = open(self.table);
        let renewed = due.iter().map(|due| {
            let held = due.downcast::<MemoryGrant>()?;
            let kept = table.renew(now, &held.name, held.nonce, due.ttl);
            Ok(if kept { Renewal::Kept { since: now, ttl: due.ttl } } else { Renewal::Lost })
        });
        let renewed: Vec<_> = renewed.collect();
        Box::pin(std::future::ready(renewed))
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        let all = open(self.table).contenders(Instant::now(), name);
        Box::pin(std::future::ready(Ok(all)))
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(std::future::ready(Ok(open(self.table).break_lock(Instant::now(), name))))
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        let names = open(self.table).names(Instant::now(), prefix);
        Box::pin(std::future::ready(Ok(names)))
    }
}

impl Contender for MemoryContender {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let attempt = self.backend.acquire(&self.claim, Some(&self.wake));
        Box::pin(std::future::ready(Ok(attempt)))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        open(self.backend.table).give(Instant::now(), &self.claim.options.name, self.claim.nonce);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Grant for MemoryGrant {
    fn fences(&self) -> Option<std::ops::Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn slots(&self) -> &[u32] {
        &self.slots
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        let answer = self.unlock();
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn release_now(&self) -> Option<Released> {
        Some(self.unlock())
    }
}

impl MemoryGrant {
    fn unlock(&self) -> Released {
        // A lease without an end can't have ended.
        let now = if self.unexpiring { Instant::START } else { Instant::now() };
        if open(self.table).give(now, &self.name, self.nonce) { Released::Yes } else { Released::NotOurs }
    }
}

impl fmt::Debug for MemoryContender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryContender").field(&self.claim).finish()
    }
}
