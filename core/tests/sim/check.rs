//! The judge: what must hold at every moment, whatever the network, the server and the processes do.
//!
//! All of it happens in one thread of virtual time, so the order of events is their order in the history, and every
//! check is made when the event happens: a later look would find the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dlock::clock::Instant;
use dlock::{Lease, State};

use crate::server::{Reply, Request, Server, nonce_of};
use crate::world::Host;

/// How many events are kept to be shown.
const SHOWN: usize = 60;

/// A lease that its owner got to see.
pub struct Hold {
    pub p: usize,
    pub key: String,
    pub nonce: u64,
    pub fence: u64,
    pub lease: Weak<Lease>,
}

/// How a claim was ended by its process.
#[derive(Debug)]
struct End {
    first: Instant,
    /// The server said that it is given back.
    answered: bool,
    /// And nothing of it can be executed any more.
    settled: bool,
    ttl: Duration,
}

#[derive(Default)]
pub struct Check {
    pub failure: Option<(&'static str, String)>,
    pub counts: BTreeMap<&'static str, u64>,
    pub events: VecDeque<String>,
    trace: DefaultHasher,
    text: String,
    names: BTreeMap<u64, usize>,
    holds: Vec<Hold>,
    highest: BTreeMap<String, u64>,
    granted: BTreeMap<String, u64>,
    revoked: BTreeSet<u64>,
    told_lost: BTreeSet<u64>,
    ends: BTreeMap<u64, End>,
}

impl Check {
    pub fn fail(&mut self, check: &'static str, what: String) {
        if self.failure.is_none() {
            self.event(format_args!("VIOLATION of {check}: {what}"));
            self.failure = Some((check, what));
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Notes what happened, for the trace and for whoever has to understand a violation.
    pub fn event(&mut self, what: std::fmt::Arguments<'_>) {
        if self.failure.is_some() {
            return;
        }
        let now = Instant::now().nanos() - 1_000_000_000_000;
        self.text.clear();
        let _ = write!(self.text, "{:>11.3} ms  {what}", now as f64 / 1e6);
        self.trace.write(self.text.as_bytes());
        if self.events.len() == SHOWN {
            let mut oldest = self.events.pop_front().unwrap_or_default();
            oldest.clone_from(&self.text);
            self.events.push_back(oldest);
        } else {
            self.events.push_back(self.text.clone());
        }
    }

    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// A claim's name in the trace: nonces differ from run to run.
    fn name(&mut self, nonce: u64) -> usize {
        let next = self.names.len() + 1;
        *self.names.entry(nonce).or_insert(next)
    }

    // ---- the server's truth

    pub fn executed(&mut self, p: usize, request: &Request, reply: &Reply) {
        match request {
            Request::Take { claim, stamp, .. } => {
                let name = self.name(claim.nonce);
                let age = Instant::now() - *stamp;
                self.event(format_args!(
                    "server: p{p} take {} c{name} (sent {age:?} ago): {reply:?}",
                    claim.options.name
                ));
            }
            Request::Give { key, nonce } => {
                let name = self.name(*nonce);
                let held = matches!(reply, Reply::Gave(true, _));
                self.event(format_args!("server: p{p} give {key} c{name}: {held}"));
            }
            Request::Renew(all) => {
                let names: Vec<_> = all.iter().map(|(_, nonce, ttl)| (self.name(*nonce), *ttl)).collect();
                self.event(format_args!("server: p{p} renew {names:?}: {reply:?}"));
            }
            Request::Look(_) | Request::Ping => {}
            Request::Break(key) => self.event(format_args!("server: p{p} break {key}: {reply:?}")),
        }
    }

    /// The server granted: fences go on, and nobody else may believe that it holds the key.
    pub fn granted(&mut self, now: Instant, key: &str, nonce: u64, fence: u64, hosts: &[Host]) {
        let last = self.granted.insert(key.to_owned(), fence).unwrap_or(0);
        if fence <= last {
            self.fail("I2 fences", format!("the server granted {fence} after {last} on {key}"));
        }
        if let Some(hold) = self.believer(now, key, nonce, hosts) {
            let text = format!(
                "p{} believes that it holds {key} (fence {}) while the server grants {fence}",
                hold.p, hold.fence
            );
            self.fail("I3 honest", text);
        }
    }

    /// Who else counts on holding this key: not a process that is dead, nor one that the operator or a loss of data
    /// took the lock from.
    fn believer(&self, now: Instant, key: &str, nonce: u64, hosts: &[Host]) -> Option<&Hold> {
        self.holds.iter().find(|hold| {
            let counts = |lease: Arc<Lease>| lease.state() == State::Held && now < lease.valid_until();
            hold.key == key
                && hold.nonce != nonce
                && !hosts[hold.p].dead
                && !self.revoked.contains(&hold.nonce)
                && hold.lease.upgrade().is_some_and(counts)
        })
    }

    pub fn revoke(&mut self, nonce: u64, why: &'static str) {
        self.revoked.insert(nonce);
        self.count(why);
    }

    /// A process contends: nothing of another claim of its own may be left at the server.
    pub fn beside_itself(&mut self, now: Instant, p: usize, key: &str, nonce: u64, server: &mut Server) {
        if self.ends.contains_key(&nonce) {
            return;
        }
        self.no_orphan(now, p, key, Some(nonce), server);
    }

    /// What the process no longer contends for or holds is not at the server either, unless it is still being undone
    /// or could not be for longer than it lives by itself.
    pub fn no_orphan(&mut self, now: Instant, p: usize, key: &str, but: Option<u64>, server: &mut Server) {
        for nonce in server.claims(now, key) {
            if Some(nonce) == but || server.process(nonce) != Some(p) || self.revoked.contains(&nonce) {
                continue;
            }
            let why = match self.ends.get(&nonce) {
                None => "was left behind without a word",
                Some(end) if end.settled => "is back after it was settled",
                Some(end) if !end.answered && now < end.first.plus(end.ttl) => {
                    "isn't settled, but the turn was passed on"
                }
                Some(_) => continue,
            };
            let name = self.name(nonce);
            self.fail("I6 no orphan", format!("the claim c{name} of p{p} for {key} {why}"));
        }
    }

    // ---- what the processes do

    /// An acquire returned a lease.
    pub fn entered(&mut self, p: usize, lease: &Arc<Lease>, fresh: bool, hosts: &[Host]) -> u64 {
        let now = Instant::now();
        let (key, fence, nonce) = (lease.key().to_owned(), lease.fence().unwrap_or(0), nonce_of(&lease.token()));
        let name = self.name(nonce);
        self.event(format_args!("p{p} has {key} c{name}, fence {fence}"));
        self.count("held");
        self.holds.retain(|hold| hold.lease.strong_count() > 0);
        let excused = self.revoked.contains(&nonce);
        if fresh && now >= lease.valid_until() {
            self.fail("I3 honest", format!("p{p} was given a lease on {key} that was over"));
        }
        if !excused && now < lease.valid_until() {
            if let Some(other) = self.believer(now, &key, nonce, hosts) {
                let text = format!("p{p} (fence {fence}) and p{} (fence {}) hold {key}", other.p, other.fence);
                self.fail("I1 exclusion", text);
            }
            let highest = self.highest.entry(key.clone()).or_default();
            let before = std::mem::replace(highest, fence.max(*highest));
            if fence <= before {
                self.fail("I2 fences", format!("fence {fence} on {key} after a hold with fence {before}"));
            }
        }
        self.holds.push(Hold { p, key, nonce, fence, lease: Arc::downgrade(lease) });
        nonce
    }

    pub fn told_lost(&mut self, nonce: u64) {
        self.told_lost.insert(nonce);
    }

    pub fn was_told(&self, nonce: u64) -> bool {
        self.told_lost.contains(&nonce)
    }

    /// The process sends a renewal.
    pub fn renewing(&mut self, p: usize, all: &[(String, u64, Duration)]) {
        for (key, nonce, _) in all {
            let late = self.ends.get(nonce).is_some_and(|end| end.first < Instant::now());
            if late {
                let name = self.name(*nonce);
                self.fail("I4 no foreign effect", format!("p{p} renews {key} c{name}, which it gave back"));
            }
        }
    }

    /// The process gives back or withdraws.
    pub fn ending(&mut self, nonce: u64, ttl: Duration) {
        self.ends.entry(nonce).or_insert(End { first: Instant::now(), answered: false, settled: false, ttl });
    }

    pub fn ended(&mut self, nonce: u64, settled: bool) {
        if let Some(end) = self.ends.get_mut(&nonce) {
            end.answered = true;
            end.settled |= settled;
        }
    }
}
