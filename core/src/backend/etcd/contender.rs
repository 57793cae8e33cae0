//! A contender: one claim, from its first request to a grant or its withdrawal.

use std::sync::Arc;
use std::time::Duration;

use super::grant::EtcdGrant;
use super::keys::key;
use super::mutex::{MutexTxn, Position, Predecessors, delete_if_ours};
use super::orphans::{self, Orphan};
use super::request::{Refusal, Unanswered};
use super::session::Session;
use super::shared::Etcd;
use super::watch::Subscription;
use crate::clock::Instant;
use crate::contract::record::record;
use crate::contract::{Attempt, Claim, Contender, RetryHint};
use crate::error::Result;
use crate::net::failure::Outcome;
use crate::net::request::Limits;
use crate::runtime::BoxFuture;
use crate::timing::{self, Backoff, patience};

/// The number of requests in a row before a contender pauses.
const LOOKS: u32 = 8;

/// A claim that asks for its lock.
pub(super) struct EtcdContender {
    etcd: Arc<Etcd>,
    claim: Claim,
    value: Vec<u8>,
    entry: Option<QueueEntry>,
    subscription: Option<Subscription>,
    polls: Backoff,
}

/// The key of a claim in the queue, which exists or may exist.
struct QueueEntry {
    session: Arc<Session>,
    key: Vec<u8>,
    /// The revision at which the key was put; 0: it is not known to exist.
    rev: i64,
    /// The connections on which the put had no answer.
    unanswered: Unanswered,
    /// True if the key may exist although no request is unanswered.
    unconfirmed: bool,
}

impl QueueEntry {
    /// Returns true if the key may exist or be put without an answer.
    fn is_in_doubt(&self) -> bool {
        self.unconfirmed || !self.unanswered.is_empty()
    }

    /// Returns true if the key exists or may exist.
    fn may_exist(&self) -> bool {
        self.rev != 0 || self.is_in_doubt()
    }
}

impl EtcdContender {
    pub(super) fn new(etcd: Arc<Etcd>, claim: Claim) -> Self {
        let value = record(&claim);
        Self { etcd, claim, value, entry: None, subscription: None, polls: Backoff::polls() }
    }

    /// Tries once.
    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let end = Instant::now().plus(budget);
        for _ in 0..LOOKS {
            let limits = Limits { patience: patience(self.claim.options.ttl), budget: end.left() };
            self.ensure_entry(limits).await?;
            let Some(entry) = &mut self.entry else { continue };
            // Read before the request: the server has executed the keep-alive by which the lease lives.
            let since = entry.session.since();
            if entry.rev != 0 && self.subscription.as_ref().is_some_and(|subscription| subscription.listener.is_first())
            {
                let rev = entry.rev;
                return Ok(self.granted(rev, since));
            }
            let collects = self.subscription.as_ref().is_some_and(Subscription::collect);
            let (link, name) = (&self.etcd.link, &*self.claim.options.name);
            let (floors, made) = (&self.etcd.floors, link.made());
            let mutex = MutexTxn { link, name, key: &entry.key, value: &self.value, limits, floors, made };
            let lease = entry.session.id;
            let answer = match entry.rev {
                0 if self.claim.wait => mutex.enqueue(lease).await,
                0 => mutex.acquire(lease).await,
                rev => mutex.locate(rev).await.map(|seen| (seen, Unanswered::new())),
            };
            let seen = match answer {
                Ok((seen, unanswered)) => {
                    entry.unanswered.extend(unanswered);
                    seen
                }
                Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => {
                    // Requests before this one can't be applied any more either.
                    entry.session.lose();
                    self.entry = None;
                    continue;
                }
                Err(refusal) => {
                    if entry.rev == 0 && refusal.is_in_doubt() {
                        entry.unconfirmed = true;
                        entry.unanswered.extend(refusal.unanswered);
                    }
                    return Err(refusal.failure.error);
                }
            };
            match seen {
                Position::First { rev } => return Ok(self.granted(rev, since)),
                Position::Behind { rev, predecessors } => {
                    entry.rev = rev;
                    if !self.claim.wait {
                        return Ok(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None }));
                    }
                    if let Some(wake) = self.wake(collects, predecessors, limits).await {
                        return Ok(Attempt::Busy(wake));
                    }
                }
                Position::Absent if !self.claim.wait && entry.rev == 0 => {
                    return Ok(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None }));
                }
                // The lease has ended or the key was deleted: the place is lost.
                Position::Absent => self.give_up_entry(),
                Position::Foreign(theirs) => {
                    entry.rev = 0;
                    entry.unconfirmed = false;
                    let orphan = Orphan { key: entry.key.clone(), value: theirs, unanswered: Unanswered::new() };
                    orphans::take_back(self.etcd.link.clone(), &entry.session, orphan);
                    self.etcd.sessions.retire(&entry.session);
                    self.give_up_entry();
                }
            }
        }
        Ok(Attempt::Busy(RetryHint { after: Duration::from_millis(fastrand::u64(5..=15)), on: None }))
    }

    /// Makes sure that the claim has a key, with a lease that lives.
    async fn ensure_entry(&mut self, limits: Limits) -> Result<(), Refusal> {
        if let Some(entry) = &self.entry {
            let session = &entry.session;
            // A dedicated lease has nearly its whole ttl at the grant.
            let limit = if session.dedicated { timing::dedicated_limit } else { timing::session_refresh };
            let age = limit(session.ttl);
            let lives =
                !session.is_older_than(age) || Box::pin(session.keep_alive(limits, Instant::now().minus(age))).await?;
            if lives {
                return Ok(());
            }
            self.entry = None;
        }
        let options = &self.claim.options;
        // The longest name of a lease.
        let size = options.name.len() + 17;
        let session = self.etcd.sessions.pick(options.ttl, !options.auto_renew, size, limits).await?;
        let key = key(&options.name, session.id);
        self.subscription = self.subscription.take().filter(|subscription| subscription.listener.is_for(&key));
        if self.subscription.is_none() && self.claim.wait {
            self.subscription = self.etcd.watches.subscribe(&options.name, &key, true);
        }
        self.entry = Some(QueueEntry { session, key, rev: 0, unanswered: Unanswered::new(), unconfirmed: false });
        Ok(())
    }

    /// Returns the hint for the next try, behind these keys. `None`: ask again at once.
    async fn wake(&mut self, collects: bool, predecessors: Predecessors, limits: Limits) -> Option<RetryHint> {
        let entry = self.entry.as_ref()?;
        let after = entry
            .session
            .since()
            .plus(timing::session_refresh(entry.session.ttl))
            .left()
            .max(Duration::from_millis(10));
        if collects {
            let subscription = self.subscription.as_ref()?;
            if !subscription.listener.arm(predecessors) {
                return None;
            }
            self.polls.reset();
            return Some(RetryHint { after, on: Some(Box::pin(subscription.listener.notified())) });
        }
        let watched = match &self.subscription {
            Some(subscription) => subscription,
            None => {
                let (name, key) = (&self.claim.options.name, &entry.key);
                self.subscription = self.etcd.watches.subscribe(name, key, false);
                self.subscription.as_ref()?
            }
        };
        if watched.ready(limits.patience.min(limits.budget)).await {
            if mutant!("etcd-listens-after-reading") && watched.collect() && watched.listener.arm(predecessors) {
                return Some(RetryHint { after, on: Some(Box::pin(watched.listener.notified())) });
            }
            return None;
        }
        // No event will come: poll, less and less often.
        Some(RetryHint { after: after.min(self.polls.next()), on: None })
    }

    /// Gives up the key. The next try starts with another key, or with the same one.
    fn give_up_entry(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        if entry.is_in_doubt() {
            self.take_back(&entry);
        }
    }

    /// Takes back a key that exists or may still be put.
    fn take_back(&self, entry: &QueueEntry) {
        let (key, value, unanswered) = (entry.key.clone(), self.value.clone(), entry.unanswered.clone());
        let orphan = Orphan { key, value, unanswered };
        self.etcd.sessions.retire(&entry.session);
        orphans::take_back(self.etcd.link.clone(), &entry.session, orphan);
    }

    /// Returns the grant, which takes over the key and the subscription.
    fn granted(&mut self, rev: i64, since: Instant) -> Attempt {
        let Some(entry) = self.entry.take() else {
            return Attempt::Busy(RetryHint { after: Duration::ZERO, on: None });
        };
        let ttl = entry.session.ttl;
        let subscription = self.subscription.take();
        let (etcd, claim, value) = (self.etcd.clone(), self.claim.clone(), std::mem::take(&mut self.value));
        let held = EtcdGrant::new(etcd, claim, (entry.key, value), rev, entry.session, subscription, entry.unanswered);
        Attempt::Granted { grant: Arc::new(held), since, ttl }
    }

    /// Deletes the key.
    async fn delete_entry(&mut self) -> Result<()> {
        let Some(entry) = &self.entry else { return Ok(()) };
        let limits = self.etcd.link.limits(patience(self.claim.options.ttl));
        let in_doubt = entry.is_in_doubt();
        if !entry.may_exist() {
            return Ok(());
        }
        if entry.session.dedicated {
            // The end of the lease deletes the key, and the key can't be put later.
            entry.session.revoke(limits).await?;
            return Ok(());
        }
        let rev = if in_doubt { 0 } else { entry.rev };
        match delete_if_ours(&self.etcd.link, limits, (&entry.key, &self.value), rev).await {
            Ok(_) if in_doubt => self.take_back(entry),
            Ok(_) => {}
            Err(refusal) if refusal.failure.error.is_temporary() => return Err(refusal.into()),
            // Refused for good: the caller need not wait.
            Err(_) => self.take_back(entry),
        }
        Ok(())
    }
}

/// Takes back in the background the key that could not be deleted in time: its lease may live on for other claims.
impl Drop for EtcdContender {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take().filter(|entry| entry.may_exist() && !entry.session.dedicated) {
            self.take_back(&entry);
        }
    }
}

impl Contender for EtcdContender {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.delete_entry().await?;
            (self.entry, self.subscription) = (None, None);
            Ok(())
        })
    }
}

impl std::fmt::Debug for EtcdContender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdContender").field("claim", &self.claim).finish_non_exhaustive()
    }
}
