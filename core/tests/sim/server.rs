//! The server: the executable specification with real expiry, a clock of its own rate, and, above the specification,
//! direct hand-over to the head of the queue. Some deliberate defects live here too.

use std::collections::BTreeMap;
use std::time::Duration;

use dlock::backend::memory::{Table, Taken};
use dlock::clock::Instant;
use dlock::{Claim, ContenderInfo};

/// What a client asks. All of it may come late, twice or never.
#[derive(Clone, Debug)]
pub enum Request {
    Take {
        claim: Claim,
        /// When it was sent, by the sender's clock.
        stamp: Instant,
        /// How long before that the countdown of what it is granted began.
        age: Duration,
        /// After this the server must refuse it.
        till: Instant,
    },
    Give {
        key: String,
        nonce: u64,
    },
    Renew(Vec<(String, u64, Duration)>),
    Look(String),
    Break(String),
    Ping,
}

/// What the server answers.
#[derive(Debug)]
pub enum Reply {
    Granted(u64),
    Busy(Duration),
    Late,
    /// Whether it held, and the server's time.
    Gave(bool, Instant),
    Renewed(Vec<bool>),
    Holders(Vec<ContenderInfo>),
    Broken(bool),
    Pong,
}

/// What the server sends unasked.
#[derive(Clone, Debug)]
pub enum Push {
    Granted { nonce: u64, fence: u64, stamp: Instant },
    RetryHint { nonce: u64 },
    Broken { key: String },
}

/// What an execution changed, for the checker.
#[derive(Debug, Default)]
pub struct Effects {
    pub pushes: Vec<(usize, Push)>,
    pub granted: Vec<(String, u64, u64)>,
    pub revoked: Vec<u64>,
    pub foreign: Option<String>,
}

pub struct Server {
    table: Table,
    base: u64,
    last: u64,
    pub handover: bool,
    /// How much longer than asked it keeps a lock, in millionths; its clock runs at another rate.
    pub skew: i64,
    pub paused: Instant,
    pub mutant: Option<&'static str>,
    waiting: BTreeMap<u64, (usize, Claim, Instant, Duration)>,
    process: BTreeMap<u64, usize>,
    owners: BTreeMap<String, u64>,
}

/// The nonce in a token that no user chose.
pub fn nonce_of(token: &str) -> u64 {
    token.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

impl Server {
    pub fn new(handover: bool, skew: i64, mutant: Option<&'static str>) -> Self {
        Self {
            table: Table::default(),
            base: 1_000,
            last: 0,
            handover,
            skew,
            paused: Instant::START,
            mutant,
            waiting: BTreeMap::new(),
            process: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    fn is(&self, mutant: &str) -> bool {
        self.mutant == Some(mutant)
    }

    fn end(&self, now: Instant, ttl: Duration) -> Instant {
        let skew = ttl.as_nanos() as i64 / 1_000_000 * self.skew;
        let nanos = ttl.as_nanos() as i64 + skew;
        now.plus(Duration::from_nanos(nanos.max(0) as u64))
    }

    /// Which process a claim is of.
    pub fn process(&self, nonce: u64) -> Option<usize> {
        self.process.get(&nonce).copied()
    }

    /// Every claim that the server knows for this key, holder first.
    pub fn claims(&mut self, now: Instant, key: &str) -> Vec<u64> {
        let all = self.table.contenders(now, key);
        all.iter().filter_map(|holder| holder.token.as_deref()).map(nonce_of).collect()
    }

    pub fn is_empty(&mut self, now: Instant) -> bool {
        self.table.is_empty(now)
    }

    /// All data is gone: a window in which nothing is promised but that fences go on increasing.
    pub fn lose_data(&mut self, now: Instant, keys: &[String]) -> Vec<u64> {
        let revoked = keys.iter().flat_map(|key| self.claims(now, key)).collect();
        self.table = Table::default();
        self.waiting.clear();
        self.owners.clear();
        self.base = if self.is("server-fence-not-floored") { 0 } else { self.last + 1_000 };
        revoked
    }

    fn fence(&mut self, raw: u64) -> u64 {
        let fence = self.base + if self.is("server-fence-not-stepped") { raw - raw % 2 } else { raw };
        self.last = self.last.max(fence);
        fence
    }

    pub fn execute(&mut self, now: Instant, p: usize, request: &Request) -> (Reply, Effects) {
        let mut effects = Effects::default();
        let reply = match request {
            Request::Take { claim, stamp, age, till } => self.take(now, p, claim, (*stamp, *age), *till, &mut effects),
            Request::Give { key, nonce } => self.give(now, key, *nonce, &mut effects),
            Request::Renew(all) => {
                let renewed = all.iter().map(|(key, nonce, ttl)| {
                    let before = self.table.owner(now, key);
                    let ttl = self.end(now, *ttl) - now;
                    let kept = if self.is("server-renew-unchecked") {
                        before.is_some_and(|owner| self.table.renew(now, key, owner, ttl))
                    } else {
                        self.table.renew(now, key, *nonce, ttl)
                    };
                    if before != self.table.owner(now, key) || kept && before != Some(*nonce) {
                        effects.foreign = Some(key.clone());
                    }
                    kept
                });
                Reply::Renewed(renewed.collect())
            }
            Request::Look(key) => Reply::Holders(self.table.contenders(now, key)),
            Request::Break(key) => {
                effects.revoked.extend(self.table.owner(now, key));
                let broken = self.table.break_lock(now, key);
                for nonce in &effects.revoked {
                    if let Some(p) = self.process(*nonce) {
                        effects.pushes.push((p, Push::Broken { key: key.clone() }));
                    }
                }
                self.next(now, key, None, &mut effects);
                Reply::Broken(broken)
            }
            Request::Ping => Reply::Pong,
        };
        (reply, effects)
    }

    fn take(
        &mut self,
        now: Instant,
        p: usize,
        claim: &Claim,
        (stamp, age): (Instant, Duration),
        till: Instant,
        effects: &mut Effects,
    ) -> Reply {
        if now > till && !self.is("server-accepts-late") {
            return Reply::Late;
        }
        let key = claim.options.name.to_string();
        self.process.insert(claim.nonce, p);
        let end = self.end(now, claim.options.ttl).minus(age);
        match self.table.take(now, claim, end, claim.wait, None) {
            Taken::Granted(raw) => {
                self.waiting.remove(&claim.nonce);
                let fence = self.fence(raw);
                self.note(&key, claim.nonce, fence, effects);
                Reply::Granted(fence)
            }
            Taken::Busy(until) => {
                if claim.wait {
                    self.waiting.insert(claim.nonce, (p, claim.clone(), stamp, age));
                }
                if self.table.owner(now, &key).is_none()
                    && let Some(fence) = self.next(now, &key, Some(claim.nonce), effects)
                {
                    return Reply::Granted(fence);
                }
                Reply::Busy(until - now)
            }
        }
    }

    fn give(&mut self, now: Instant, key: &str, nonce: u64, effects: &mut Effects) -> Reply {
        let before = self.table.owner(now, key);
        let held = if self.is("server-release-unchecked") {
            self.table.break_lock(now, key)
        } else {
            self.table.give(now, key, nonce)
        };
        self.waiting.remove(&nonce);
        if before.is_some_and(|owner| owner != nonce) && self.table.owner(now, key) != before {
            effects.foreign = Some(key.to_owned());
        }
        self.next(now, key, None, effects);
        Reply::Gave(held, now)
    }

    /// Names the next owner of a free key and tells it, or only wakes it. Says the fence if that is `asking`.
    fn next(&mut self, now: Instant, key: &str, asking: Option<u64>, effects: &mut Effects) -> Option<u64> {
        if self.table.owner(now, key).is_some() {
            return None;
        }
        let head = self.claims(now, key).first().copied()?;
        let (p, claim, stamp, age) = self.waiting.get(&head)?.clone();
        if !self.handover {
            effects.pushes.push((p, Push::RetryHint { nonce: head }));
            return None;
        }
        let end = self.end(now, claim.options.ttl).minus(age);
        let Taken::Granted(raw) = self.table.take(now, &claim, end, true, None) else {
            return None;
        };
        self.waiting.remove(&head);
        let fence = self.fence(raw);
        self.note(key, head, fence, effects);
        if asking == Some(head) {
            return Some(fence);
        }
        effects.pushes.push((p, Push::Granted { nonce: head, fence, stamp: stamp.minus(age) }));
        None
    }

    fn note(&mut self, key: &str, nonce: u64, fence: u64, effects: &mut Effects) {
        if self.owners.insert(key.to_owned(), nonce) != Some(nonce) {
            effects.granted.push((key.to_owned(), nonce, fence));
        }
    }
}
