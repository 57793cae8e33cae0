//! The executable specification: for each name its holder, the end, the fence and the queue. It is pure: the time is an
//! argument, and nothing here waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;

use crate::clock::Instant;
use crate::contract::admission::{Slots, Tally};
use crate::contract::{Claim, ContenderInfo, Mode, owner};
use crate::timing;

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
    /// In the order in which they came.
    holders: Vec<Holder>,
    /// The sum of the holders.
    holding: Tally,
    /// The slots of their permits.
    slots: Slots,
    queue: VecDeque<Queued>,
    /// The greatest limit of permits of those in the queue, since it was empty.
    limit: u32,
}

/// The claim that holds a name.
#[derive(Debug)]
struct Holder {
    claim: Claim,
    fence: u64,
    since: Instant,
    expires: Instant,
    slots: Vec<u32>,
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
        // A free name, the common case, needs no more than this.
        let mut place = None;
        let mut admitted = entry.is_free();
        if !admitted {
            entry.clean(now, Some(claim.nonce));
            if let Some(held) = entry.held(claim.nonce) {
                held.expires = held.expires.max(expires);
                return Taken::Granted(held.fence);
            }
            place = entry.queue.iter().position(|queued| queued.claim.nonce == claim.nonce);
            admitted = entry.admits(claim.options.mode, place);
        }
        if admitted {
            if let Some(place) = place {
                entry.queue.remove(place);
            }
            self.fence += 1;
            entry.hold(claim, self.fence, now, expires);
            // Those behind may hold beside it.
            entry.call_next();
            return Taken::Granted(self.fence);
        }
        if queue {
            let stale = now.plus(timing::queue_lifetime(claim.options.ttl));
            match place {
                Some(place) => entry.queue[place].stale = stale,
                None => {
                    let limit = claim.options.mode.limit();
                    entry.limit = if entry.queue.is_empty() { limit } else { entry.limit.max(limit) };
                    entry.queue.push_back(Queued { claim: claim.clone(), since: now, stale, wake: wake.cloned() });
                }
            }
        }
        let first = entry.holders.iter().map(|held| held.expires).min();
        Taken::Busy(first.unwrap_or_else(|| now.plus(Duration::from_millis(1))))
    }

    /// The slots of this claim, if it holds permits of the name.
    pub fn slots(&self, name: &str, nonce: u64) -> Vec<u32> {
        let held = self.entries.get(name).and_then(|entry| entry.holders.iter().find(|held| held.claim.nonce == nonce));
        held.map(|held| held.slots.clone()).unwrap_or_default()
    }

    /// Releases the name if this claim holds it, and removes the claim from the queue. Returns true if it held.
    pub fn give(&mut self, now: Instant, name: &str, nonce: u64) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        let held = match &*entry.holders {
            // The common case: it alone.
            [only] if only.claim.nonce == nonce && entry.queue.is_empty() => {
                let held = only.expires > now;
                entry.leave(0);
                held
            }
            _ => {
                entry.clean(now, None);
                let place = entry.holders.iter().position(|held| held.claim.nonce == nonce);
                place.iter().for_each(|place| entry.leave(*place));
                entry.queue.retain(|queued| queued.claim.nonce != nonce);
                entry.call_next();
                place.is_some()
            }
        };
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
        match entry.held(nonce) {
            Some(held) => {
                held.expires = held.expires.max(now.plus(ttl));
                true
            }
            None => false,
        }
    }

    /// Takes the name away from its holders. Returns false if it was free.
    pub fn break_lock(&mut self, now: Instant, name: &str) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        entry.clean(now, None);
        let broken = !entry.holders.is_empty();
        while !entry.holders.is_empty() {
            entry.leave(entry.holders.len() - 1);
        }
        entry.call_next();
        self.forget_free();
        broken
    }

    /// Forgets free names, once there are many: most names are used again.
    fn forget_free(&mut self) {
        if self.entries.len() >= self.limit {
            self.entries.retain(|_, entry| !entry.is_free());
            self.limit = (2 * self.entries.len()).max(KEPT);
        }
    }

    /// Returns the holders and the queue.
    pub fn contenders(&mut self, now: Instant, name: &str) -> Vec<ContenderInfo> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Vec::new();
        };
        entry.clean(now, None);
        let held = entry.holders.iter().map(|held| ContenderInfo {
            held: true,
            fence: Some(held.fence),
            slots: held.slots.clone(),
            ttl: (held.expires != Instant::NEVER).then(|| held.expires - now),
            ..contender_info(&held.claim, now - held.since)
        });
        held.chain(entry.queue.iter().map(|queued| contender_info(&queued.claim, now - queued.since))).collect()
    }

    /// Returns the names of this prefix that are held or waited for.
    pub fn names(&mut self, now: Instant, prefix: &str) -> Vec<String> {
        self.entries.values_mut().for_each(|entry| entry.clean(now, None));
        let used = self.entries.iter().filter(|(name, entry)| name.starts_with(prefix) && !entry.is_free());
        used.map(|(name, _)| name.to_string()).collect()
    }

    /// Returns the nonce of the claim that holds the name, the first of several.
    pub fn owner(&mut self, now: Instant, name: &str) -> Option<u64> {
        let entry = self.entries.get_mut(name)?;
        entry.clean(now, None);
        entry.holders.first().map(|held| held.claim.nonce)
    }

    /// Returns true if no name is held and no claim waits.
    pub fn is_empty(&mut self, now: Instant) -> bool {
        self.entries.values_mut().for_each(|entry| entry.clean(now, None));
        self.entries.values().all(Entry::is_free)
    }
}

/// Describes a claim of this process.
fn contender_info(claim: &Claim, age: Duration) -> ContenderInfo {
    ContenderInfo {
        token: Some(claim.token()),
        label: claim.options.label.as_deref().map(str::to_owned),
        host: Some(owner::host().to_owned()),
        pid: Some(std::process::id()),
        age: Some(age),
        mode: claim.options.mode,
        ..ContenderInfo::default()
    }
}

impl Entry {
    /// Removes leases that have ended and contenders that are dead. The asking claim is not dead.
    fn clean(&mut self, now: Instant, asking: Option<u64>) {
        // From the end: where all have ended, none is moved.
        for place in (0..self.holders.len()).rev() {
            if self.holders[place].expires <= now {
                self.leave(place);
            }
        }
        if !self.queue.is_empty() {
            self.queue.retain(|queued| queued.stale > now || Some(queued.claim.nonce) == asking);
        }
    }

    /// Returns true if no claim holds the name or waits for it.
    fn is_free(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty()
    }

    fn held(&mut self, nonce: u64) -> Option<&mut Holder> {
        self.holders.iter_mut().find(|held| held.claim.nonce == nonce)
    }

    /// Takes a claim in as a holder, with the slots of its permits.
    fn hold(&mut self, claim: &Claim, fence: u64, since: Instant, expires: Instant) {
        let mode = claim.options.mode;
        let slots = match mode {
            Mode::Permits { count, .. } => self.slots.take(count),
            _ => Vec::new(),
        };
        self.holding.add(mode);
        self.holders.push(Holder { claim: claim.clone(), fence, since, expires, slots });
    }

    /// Removes the holder at this place.
    fn leave(&mut self, place: usize) {
        let left = &self.holders[place];
        self.holding.remove(left.claim.options.mode);
        if !left.slots.is_empty() {
            self.slots.give(&left.slots);
        }
        // The common case, the last one, moves nothing.
        if place + 1 == self.holders.len() {
            self.holders.truncate(place);
        } else {
            self.holders.remove(place);
        }
    }

    /// Returns true if a claim of this mode may hold the name: at its place in the queue, or behind all.
    fn admits(&self, mode: Mode, place: Option<usize>) -> bool {
        let mut ahead = self.holding;
        let mut before = self.queue.iter().take(place.unwrap_or(self.queue.len()));
        // What isn't admitted behind some is admitted behind no more.
        ahead.admits(mode)
            && before.all(|queued| {
                ahead.add(queued.claim.options.mode);
                ahead.admits(mode)
            })
    }

    /// Wakes the first claim of the queue that may hold the name now. It wakes the next one.
    #[inline]
    fn call_next(&self) {
        if !self.queue.is_empty() {
            self.wake_first();
        }
    }

    fn wake_first(&self) {
        let mut ahead = self.holding;
        for queued in &self.queue {
            let mode = queued.claim.options.mode;
            match &queued.wake {
                Some(wake) if ahead.admits(mode) => return wake.notify_one(),
                _ if !ahead.admits_some(self.limit) => return,
                _ => ahead.add(mode),
            }
        }
    }
}
