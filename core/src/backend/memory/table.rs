//! The executable specification: who holds a name, until when, with which fence, and who is next. Pure: the time is an
//! argument, nothing here waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;

use crate::clock::Instant;
use crate::contract::Claim;
use crate::contract::ContenderInfo;

/// All names of one backend.
#[derive(Debug)]
pub struct Table {
    fence: u64,
    /// How many names there may be before the free ones are forgotten.
    limit: usize,
    entries: HashMap<Arc<str>, Entry, FxBuildHasher>,
}

#[derive(Debug, Default)]
struct Entry {
    holder: Option<Held>,
    queue: VecDeque<Queued>,
}

#[derive(Debug)]
struct Held {
    claim: Claim,
    fence: u64,
    since: Instant,
    expires: Instant,
}

#[derive(Debug)]
struct Queued {
    claim: Claim,
    since: Instant,
    /// A contender that has not asked again by then is dead or cut off, and is passed over.
    stale: Instant,
    wake: Option<Arc<Notify>>,
}

/// The answer to a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Granted, with this fence.
    Granted(u64),
    /// Busy; it ends by itself then, if it isn't renewed.
    Busy(Instant),
}

/// How often a waiting contender asks again at the least.
pub(crate) fn refresh(ttl: Duration) -> Duration {
    (ttl / 3).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

/// How many names are kept at the least before the free ones are forgotten.
const KEPT: usize = 1024;

impl Default for Table {
    fn default() -> Self {
        Self { fence: 0, limit: KEPT, entries: HashMap::default() }
    }
}

impl Table {
    /// Takes the name if it is free and nobody is before this claim; else, if told to, queues it. Idempotent:
    /// a claim that holds the name already gets the same fence again, and the new end if that is later.
    pub fn take(
        &mut self,
        now: Instant,
        claim: &Claim,
        expires: Instant,
        queue: bool,
        wake: Option<&Arc<Notify>>,
    ) -> Taken {
        let name = &claim.options.name;
        // Found first without making a key, for the common case of a name that is new.
        let entry = match self.entries.get_mut(name) {
            Some(entry) => entry,
            None => self.entries.entry(name.clone()).or_default(),
        };
        entry.clean(now, Some(claim.nonce));
        if let Some(held) = &mut entry.holder
            && held.claim.nonce == claim.nonce
        {
            held.expires = held.expires.max(expires);
            return Taken::Granted(held.fence);
        }
        let first = entry.queue.front().is_none_or(|first| first.claim.nonce == claim.nonce);
        if entry.holder.is_none() && first {
            entry.queue.pop_front();
            self.fence += 1;
            entry.holder = Some(Held { claim: claim.clone(), fence: self.fence, since: now, expires });
            return Taken::Granted(self.fence);
        }
        if queue {
            let stale = now.plus(refresh(claim.options.ttl) * 3);
            match entry.queue.iter_mut().find(|queued| queued.claim.nonce == claim.nonce) {
                Some(queued) => queued.stale = stale,
                None => {
                    entry.queue.push_back(Queued { claim: claim.clone(), since: now, stale, wake: wake.cloned() });
                }
            }
        }
        Taken::Busy(entry.holder.as_ref().map_or(now.plus(Duration::from_millis(1)), |held| held.expires))
    }

    /// Gives the name back if this claim holds it, and leaves the queue if it waits. Says whether it held.
    pub fn give(&mut self, now: Instant, name: &str, nonce: u64) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        entry.clean(now, None);
        let held = entry.holder.take_if(|held| held.claim.nonce == nonce).is_some();
        if !entry.queue.is_empty() {
            entry.queue.retain(|queued| queued.claim.nonce != nonce);
        }
        entry.call_next();
        self.forget_free();
        held
    }

    /// Prolongs the hold of this claim; a shorter ttl never brings its end nearer, since requests may overtake one
    /// another and the holder counts on the latest end it was told. False: it has none.
    pub fn renew(&mut self, now: Instant, name: &str, nonce: u64, ttl: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        entry.clean(now, None);
        match entry.holder.as_mut().filter(|held| held.claim.nonce == nonce) {
            Some(held) => {
                held.expires = held.expires.max(now.plus(ttl));
                true
            }
            None => false,
        }
    }

    /// Takes the name away from whoever holds it. False: nobody did.
    pub fn break_lock(&mut self, now: Instant, name: &str) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        entry.clean(now, None);
        let broken = entry.holder.take().is_some();
        entry.call_next();
        self.forget_free();
        broken
    }

    /// Names come back more often than not, so a free one is kept until there are many.
    fn forget_free(&mut self) {
        if self.entries.len() >= self.limit {
            self.entries.retain(|_, entry| entry.holder.is_some() || !entry.queue.is_empty());
            self.limit = (2 * self.entries.len()).max(KEPT);
        }
    }

    /// The holder and the queue.
    pub fn contenders(&mut self, now: Instant, name: &str) -> Vec<ContenderInfo> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Vec::new();
        };
        entry.clean(now, None);
        let held = entry.holder.iter().map(|held| ContenderInfo {
            held: true,
            fence: Some(held.fence),
            ttl: (held.expires != Instant::NEVER).then(|| held.expires - now),
            ..told(&held.claim, now - held.since)
        });
        held.chain(entry.queue.iter().map(|queued| told(&queued.claim, now - queued.since))).collect()
    }

    /// Who holds the name: the nonce of its claim.
    pub fn owner(&mut self, now: Instant, name: &str) -> Option<u64> {
        let entry = self.entries.get_mut(name)?;
        entry.clean(now, None);
        entry.holder.as_ref().map(|held| held.claim.nonce)
    }

    /// Whether nothing is held and nobody waits.
    pub fn is_empty(&mut self, now: Instant) -> bool {
        self.entries.values_mut().for_each(|entry| entry.clean(now, None));
        self.entries.values().all(|entry| entry.holder.is_none() && entry.queue.is_empty())
    }
}

fn told(claim: &Claim, age: Duration) -> ContenderInfo {
    ContenderInfo {
        token: Some(claim.token()),
        label: claim.options.label.as_deref().map(str::to_owned),
        host: Some(crate::contract::owner::host().to_owned()),
        pid: Some(std::process::id()),
        age: Some(age),
        ..ContenderInfo::default()
    }
}

impl Entry {
    /// Forgets what has ended by now. The one who asks is not dead.
    fn clean(&mut self, now: Instant, asking: Option<u64>) {
        self.holder.take_if(|held| held.expires <= now);
        if !self.queue.is_empty() {
            self.queue.retain(|queued| queued.stale > now || Some(queued.claim.nonce) == asking);
        }
    }

    fn call_next(&self) {
        if self.holder.is_none()
            && let Some(wake) = self.queue.front().and_then(|first| first.wake.as_ref())
        {
            wake.notify_one();
        }
    }
}
