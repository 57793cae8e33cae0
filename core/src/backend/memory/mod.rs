//! `memory://name`: a lock inside this process, and what every other backend is held to.

mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub use table::{Table, Taken};

use super::{Attempt, Backend, BoxFuture, Capability, Contender, Driver, Due, Grant, Holder, Renewal, Wake};
use crate::claim::Claim;
use crate::clock::Instant;
use crate::config::{Config, Opt, Parts, Scheme, Value, Values, Want};
use crate::error::{Error, Result};
use crate::runtime::PerProcess;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver = Driver {
    name: "memory",
    schemes: &[Scheme { name: "memory", tls: false, mode: None }],
    options: &[Opt { name: "name", want: Want::Text, secret: false, env: false, yaml: false, url: false }],
    service: false,
    parts,
    authority: |values| values.text("name").unwrap_or_default().to_owned(),
    capability,
    connect: |config, _| Ok(Arc::new(Memory { table: shared(config) })),
};

fn capability() -> Capability {
    Capability {
        fence: true,
        ttl: false,
        fifo: true,
        shared: false,
        permits: false,
        handoff: false,
        processes: false,
        fork: true,
        local: true,
        min_ttl: Duration::from_millis(100),
        guarantee: "a table in this process",
    }
}

fn parts(parts: &Parts, values: &mut Values) -> Result<()> {
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

/// The table of this name: one a process, whatever else the clients' configurations say. It stays when the last client
/// has gone, because its fences go on where they were.
fn shared(config: &Config) -> Arc<Locked> {
    static TABLES: PerProcess<Mutex<HashMap<String, Arc<Locked>>>> = PerProcess::new();
    let name = config.values().text("name").unwrap_or_default().to_owned();
    let mut tables = TABLES.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    tables.entry(name).or_default().clone()
}

#[derive(Debug)]
struct Memory {
    table: Arc<Locked>,
}

#[derive(Debug)]
struct Held {
    table: Arc<Locked>,
    name: Arc<str>,
    nonce: u64,
    fence: u64,
    endless: bool,
}

struct Waiter {
    backend: Arc<Memory>,
    claim: Claim,
    wake: Arc<Notify>,
}

fn open(table: &Locked) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    fn take(&self, claim: &Claim, wake: Option<&Arc<Notify>>) -> Attempt {
        let now = Instant::now();
        let terms = &claim.terms;
        // Renewed, it lasts as long as the process keeps it.
        let expires = if terms.renew { Instant::NEVER } else { now.plus(terms.ttl) };
        // Without a waker this is the caller's first, quick look: it doesn't queue.
        let queue = claim.wait && wake.is_some();
        match open(&self.table).take(now, claim, expires, queue, wake) {
            Taken::Granted(fence) => {
                let held = Held {
                    table: self.table.clone(),
                    name: terms.name.clone(),
                    nonce: claim.nonce,
                    fence,
                    endless: terms.renew,
                };
                Attempt::Granted { grant: Arc::new(held), since: now, ttl: terms.ttl }
            }
            Taken::Busy(until) => {
                let on = wake
                    .cloned()
                    .map(|wake| -> BoxFuture<'static, ()> { Box::pin(async move { wake.notified().await }) });
                Attempt::Busy(Wake { after: until.left().min(table::refresh(terms.ttl)), on })
            }
        }
    }
}

impl Backend for Memory {
    fn capability(&self) -> Capability {
        capability()
    }

    fn encode(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn try_now(&self, claim: &Claim) -> Option<Result<Attempt>> {
        let try_only = claim.wait.then(|| Claim { wait: false, ..claim.clone() });
        Some(Ok(self.take(try_only.as_ref().unwrap_or(claim), None)))
    }

    fn renews(&self) -> bool {
        false
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(Waiter { backend: self, claim, wake: Arc::default() })
    }

    fn renew<'a>(&'a self, due: &'a [Due]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        let now = Instant::now();
        let mut table = open(&self.table);
        let renewed = due.iter().map(|due| {
            let held = super::own::<Held>(&due.grant)?;
            let kept = table.renew(now, &held.name, held.nonce, due.ttl);
            Ok(if kept { Renewal::Kept { since: now, ttl: due.ttl } } else { Renewal::Lost })
        });
        let renewed: Vec<_> = renewed.collect();
        Box::pin(std::future::ready(renewed))
    }

    fn holders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Holder>>> {
        let all = open(&self.table).holders(Instant::now(), name);
        Box::pin(std::future::ready(Ok(all)))
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(std::future::ready(Ok(open(&self.table).break_lock(Instant::now(), name))))
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Contender for Waiter {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let attempt = self.backend.take(&self.claim, Some(&self.wake));
        Box::pin(std::future::ready(Ok(attempt)))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        open(&self.backend.table).give(Instant::now(), &self.claim.terms.name, self.claim.nonce);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Grant for Held {
    fn fences(&self) -> Option<std::ops::Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn release(&self) -> BoxFuture<'_, Result<Renewal>> {
        let answer = self.give();
        Box::pin(std::future::ready(Ok(answer)))
    }

    fn release_now(&self) -> Option<Renewal> {
        Some(self.give())
    }
}

impl Held {
    fn give(&self) -> Renewal {
        // What has no end can't have ended.
        let now = if self.endless { Instant::START } else { Instant::now() };
        if open(&self.table).give(now, &self.name, self.nonce) {
            Renewal::Kept { since: now, ttl: Duration::ZERO }
        } else {
            Renewal::Lost
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiter").field(&self.claim).finish()
    }
}
