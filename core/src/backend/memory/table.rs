//! The executable specification: for each name its holder, the end, the fence and the queue. It is pure: the time is an
//! argument, and nothing here waits.

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
    /// The number of names at which the free ones are forgotten.
    limit: usize,
    entries: HashMap<Arc<str>, Entry, FxBuildHasher>,
}

#[derive(Debug, Default)]
struct Entry {
    holder: Option<Holder>,
    queue: VecDeque<Queued>,
}

/// The claim that holds a name.
#[derive(Debug)]
struct Holder {
    claim: Claim,
    fence: u64,
    since: Instant,
    expires: Instant,
}

#[derive(Debug)]
struct Queued {
    claim: Claim,
    since: Instant,
    /// The time by which the contender has to ask again. After that it counts as dead and is skipped.
    stale: Instant,
    wake: Option<Arc<Notify>>,
}

/// The answer to a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Granted, with this fence.
    Granted(u64),
    /// Busy, until this time if the lease isn't renewed.
    Busy(Instant),
}

/// The longest time after which a waiting contender asks again.
pub(crate) fn refresh(ttl: Duration) -> Duration {
    (ttl / 3).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

/// The number of names below which none is forgotten.
const KEPT: usize = 1024;

impl Default for Table {
    fn default() -> Self {
        Self { fence: 0, limit: KEPT, entries: HashMap::default() }
    }
}

impl Table {
    /// Grants the name if it is free and no claim is before this one; otherwise queues the claim if `queue` is set.
    /// Idempotent: a claim that holds the name already gets the same fence again, and the new end if that is later.
    pub fn take(
        &mut self,
        now: Instant,
        claim: &Claim,
        expires: Instant,
        queue: bool,
        wake: Option<&Arc<Notify>>,
    ) -> Taken {
        let name = &claim.options.name;
        // Looked up without cloning the name, for a name that is known already.
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
            entry.holder = Some(Holder { claim: claim.clone(), fence: self.fence, since: now, expires });
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

    /// Releases the name if this claim holds it, and removes the claim from the queue. Returns true if it held.
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

    /// Extends the lease of this claim. A shorter ttl never brings its end nearer, because requests may overtake one
    /// another and the holder relies on the latest end. Returns false if the claim holds nothing.
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

    /// Takes the name away from its holder. Returns false if it was free.
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

    /// Forgets free names, once there are many: most names are used again.
    fn forget_free(&mut self) {
        if self.entries.len() >= self.limit {
            self.entries.retain(|_, entry| entry.holder.is_some() || !entry.queue.is_empty());
            self.limit = (2 * self.entries.len()).max(KEPT);
        }
    }

    /// Returns the holder and the queue.
    pub fn contenders(&mut self, now: Instant, name: &str) -> Vec<ContenderInfo> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Vec::new();
        };
        entry.clean(now, None);
        let held = entry.holder.iter().map(|held| ContenderInfo {
            held: true,
            fence: Some(held.fence),
            ttl: (held.expires != Instant::NEVER).then(|| held.expires - now),
            ..contender_info(&held.claim, now - held.since)
        });
        held.chain(entry.queue.iter().map(|queued| contender_info(&queued.claim, now - queued.since))).collect()
    }

    /// Returns the nonce of the claim that holds the name.
    pub fn owner(&mut self, now: Instant, name: &str) -> Option<u64> {
        let entry = self.entries.get_mut(name)?;
        entry.clean(now, None);
        entry.holder.as_ref().map(|held| held.claim.nonce)
    }

    /// Returns true if no name is held and no claim waits.
    pub fn is_empty(&mut self, now: Instant) -> bool {
        self.entries.values_mut().for_each(|entry| entry.clean(now, None));
        self.entries.values().all(|entry| entry.holder.is_none() && entry.queue.is_empty())
    }
}

/// Describes a claim of this process.
fn contender_info(claim: &Claim, age: Duration) -> ContenderInfo {
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
    /// Removes a lease that has ended and contenders that are dead. The asking claim is not dead.
    fn clean(&mut self, now: Instant, asking: Option<u64>) {
        self.holder.take_if(|held| held.expires <= now);
        if !self.queue.is_empty() {
            self.queue.retain(|queued| queued.stale > now || Some(queued.claim.nonce) == asking);
        }
    }

    /// Wakes the first of the queue if the name is free.
    fn call_next(&self) {
        if self.holder.is_none()
            && let Some(wake) = self.queue.front().and_then(|first| first.wake.as_ref())
        {
            wake.notify_one();
        }
    }
}
