//! A contender: one claim, from its first request to a grant or its withdrawal.
//!
//! A claim has one place, in the queue of its lock. A claim for permits has the lock of the permits before that, as
//! kazoo's `Semaphore` does: so at most one claim for permits waits in the queue of the lock, and the slots of the others
//! don't change while it takes its own.

use std::sync::Arc;
use std::time::Duration;

use super::grant::ZooKeeperGrant;
use super::keys::{Contending, permits_directory};
use super::permits;
use super::place::{Look, Place};
use super::session::{Refusal, Session};
use super::shared::{ZooKeeper, children};
use crate::clock::Instant;
use crate::contract::admission::{Admission, Mode, admit};
use crate::contract::record::record;
use crate::contract::{Attempt, Claim, Contender, RetryHint};
use crate::error::Result;
use crate::net::failure::Outcome;
use crate::net::request::{Limits, answer_within};
use crate::runtime::BoxFuture;
use crate::timing::{self, patience};

/// The number of requests in a row before a contender pauses.
const LOOKS: u32 = 8;

/// The time for which a try waits for another claim that takes its permits just now.
const TAKES_PERMITS: Duration = Duration::from_secs(1);

/// A claim that asks for its lock.
pub(super) struct ZooKeeperContender {
    zookeeper: Arc<ZooKeeper>,
    claim: Claim,
    entry: Option<Entry>,
}

/// The places of a claim.
struct Entry {
    session: Arc<Session>,
    /// For permits: the place in the queue of those who take some.
    turn: Option<Place>,
    /// The place in the queue of the lock. For permits only in one's turn, until the slots are noted.
    place: Place,
    /// The slots that were sent to be noted, if there was no answer.
    noted: Option<Vec<u32>>,
}

impl Entry {
    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        [&mut self.place].into_iter().chain(&mut self.turn)
    }
}

impl ZooKeeperContender {
    pub(super) fn new(zookeeper: Arc<ZooKeeper>, claim: Claim) -> Self {
        Self { zookeeper, claim, entry: None }
    }

    /// Tries once.
    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let end = Instant::now().plus(budget);
        for _ in 0..LOOKS {
            let limits = Limits { patience: patience(self.claim.options.ttl), budget: end.left() };
            match self.look(limits).await {
                Ok(Some(attempt)) => return Ok(attempt),
                Ok(None) => {}
                Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => {
                    // The nodes have ended with their session.
                    self.entry = None;
                    if end.passed() {
                        return Err(refusal.into());
                    }
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(Attempt::Busy(RetryHint { after: Duration::from_millis(fastrand::u64(5..=15)), on: None }))
    }

    /// Asks once. `None`: ask again at once.
    async fn look(&mut self, limits: Limits) -> Result<Option<Attempt>, Refusal> {
        self.ensure_entry(limits).await?;
        let (zookeeper, claim) = (&*self.zookeeper, &self.claim);
        let Some(entry) = &mut self.entry else { return Ok(None) };
        if let Some(slots) = entry.noted.take().filter(|_| !mutant!("zookeeper-noted-slots-forgotten")) {
            return self.settled(slots, limits).await;
        }
        if let Some(turn) = &mut entry.turn {
            if !turn.may_exist() {
                // Another program has deleted its node. Others take their turn meanwhile.
                entry.place.delete(zookeeper, limits).await?;
            }
            let data = || permits::waiting(claim.options.mode, &record(claim));
            match turn.look(zookeeper, data, true, limits).await? {
                Look::Admitted(_) => {}
                Look::Behind if claim.wait => return Ok(turn.undisturbed().map(Attempt::Busy)),
                Look::Behind => return Self::room(claim, entry, limits).await,
                Look::Again => return Ok(None),
            }
        }
        let data = || match claim.options.mode {
            Mode::Permits { .. } => permits::with_slots(&[], &record(claim)),
            _ => record(claim),
        };
        match entry.place.look(zookeeper, data, claim.wait, limits).await? {
            Look::Admitted(others) => self.admitted(&others, limits).await,
            Look::Behind if claim.wait => Ok(entry.place.undisturbed().map(Attempt::Busy)),
            Look::Behind => Ok(Some(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None }))),
            Look::Again => Ok(None),
        }
    }

    /// Lets a try wait for the claim before it, if there are permits for both: that one has them in a moment.
    async fn room(claim: &Claim, entry: &Entry, limits: Limits) -> Result<Option<Attempt>, Refusal> {
        let names = children(&entry.session, &claim.options.name, false, limits).await?.unwrap_or_default();
        let modes = names.iter().filter_map(|name| Contending::read(name)).map(|one| one.mode);
        let busy = Attempt::Busy(RetryHint { after: Duration::ZERO, on: None });
        if admit(claim.options.mode, modes) != Admission::Now {
            return Ok(Some(busy));
        }
        let Some(RetryHint { on: Some(on), .. }) = entry.turn.as_ref().and_then(Place::undisturbed) else {
            return Ok(None);
        };
        Ok(answer_within(limits.budget.min(TAKES_PERMITS), on).await.is_none().then_some(busy))
    }

    /// Makes sure that the claim has a session that lives, and names for its nodes.
    async fn ensure_entry(&mut self, limits: Limits) -> Result<(), Refusal> {
        if let Some(entry) = &self.entry {
            let session = &entry.session;
            // A dedicated session has nearly its whole ttl at the grant.
            let limit = if session.dedicated { timing::dedicated_limit } else { timing::session_refresh };
            let age = limit(session.ttl());
            let lives =
                !session.is_older_than(age) || Box::pin(session.keep_alive(limits, Instant::now().minus(age))).await?;
            if lives {
                return Ok(());
            }
            self.entry = None;
        }
        let (options, dialect) = (&self.claim.options, self.zookeeper.dialect);
        let session = self.zookeeper.sessions.pick(options.ttl, !options.auto_renew, limits).await?;
        let turn = match options.mode {
            Mode::Permits { .. } if !mutant!("zookeeper-permits-without-turn") => {
                Some(Place::new(dialect, &session, &permits_directory(&options.name), Mode::Exclusive)?)
            }
            _ => None,
        };
        let place = Place::new(dialect, &session, &options.name, options.mode)?;
        self.entry = Some(Entry { session, turn, place, noted: None });
        Ok(())
    }

    /// Returns the grant of a claim that is admitted. Permits get their slots first. `None`: ask again at once.
    async fn admitted(&mut self, others: &[String], limits: Limits) -> Result<Option<Attempt>, Refusal> {
        let (claim, Some(entry)) = (&self.claim, &mut self.entry) else { return Ok(None) };
        let (Mode::Permits { count, .. }, Some(turn)) = (claim.options.mode, &mut entry.turn) else {
            return Ok(self.granted(Vec::new()));
        };
        let Some((path, _)) = entry.place.node() else { return Ok(None) };
        let slots = permits::take(&entry.session, &claim.options.name, others, count, limits).await?;
        let data = permits::with_slots(&slots, &record(claim));
        // Also if this future is dropped.
        entry.noted = Some(slots.clone());
        let noted = permits::note(&entry.session, path, data, turn, limits).await;
        if !matches!(&noted, Err(refusal) if refusal.is_in_doubt()) {
            entry.noted = None;
        }
        Ok(if noted? { self.granted(slots) } else { None })
    }

    /// Finds out whether slots without an answer were noted, and returns the grant if they were.
    async fn settled(&mut self, slots: Vec<u32>, limits: Limits) -> Result<Option<Attempt>, Refusal> {
        let Some(Entry { session, turn: Some(turn), place, noted }) = &mut self.entry else { return Ok(None) };
        let Some((path, _)) = place.node() else { return Ok(None) };
        *noted = Some(slots.clone());
        if !permits::are_noted(session, path, &slots, limits).await? {
            // Then the turn is not over either.
            *noted = None;
            return Ok(None);
        }
        turn.delete(&self.zookeeper, limits).await?;
        *noted = None;
        Ok(self.granted(slots))
    }

    /// Returns the grant, which takes over the node.
    fn granted(&mut self, slots: Vec<u32>) -> Option<Attempt> {
        let entry = self.entry.as_mut()?;
        let (path, created) = entry.place.node()?;
        let (path, since, ttl) = (path.to_owned(), entry.session.since(), entry.session.ttl());
        let grant = ZooKeeperGrant::new(&self.zookeeper, &self.claim, entry.session.clone(), path, created, slots);
        entry.place.left();
        self.entry = None;
        Some(Attempt::Granted { grant: Arc::new(grant), since, ttl })
    }

    /// Deletes the nodes.
    async fn delete_entry(&mut self) -> Result<()> {
        let Some(entry) = &mut self.entry else { return Ok(()) };
        let limits = self.zookeeper.sessions.limits(patience(self.claim.options.ttl));
        if entry.session.dedicated {
            // The end of the session deletes the nodes, and none can be created later.
            if entry.places().any(|place| place.may_exist()) {
                entry.session.close(limits).await?;
            }
            return Ok(());
        }
        for place in entry.places() {
            place.delete(&self.zookeeper, limits).await?;
        }
        Ok(())
    }
}

/// Deletes in the background what could not be deleted in time.
impl Drop for ZooKeeperContender {
    fn drop(&mut self) {
        let zookeeper = &self.zookeeper;
        self.entry.iter_mut().flat_map(Entry::places).for_each(|place| place.abandon(zookeeper));
    }
}

impl Contender for ZooKeeperContender {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.delete_entry().await?;
            self.entry = None;
            Ok(())
        })
    }
}

impl std::fmt::Debug for ZooKeeperContender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZooKeeperContender").field("claim", &self.claim).finish_non_exhaustive()
    }
}
