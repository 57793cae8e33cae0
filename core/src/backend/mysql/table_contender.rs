//! A contender of the mode `table`: one claim, from its first try to a grant or its withdrawal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::table_grant::TableGrant;
use super::table_rows::{Doubts, Seen, TRIES, TableRows, Version, is_in_doubt, jitter, was_rolled_back};
use super::table_state::{Place, State, micros};
use crate::clock::Instant;
use crate::contract::record::record;
use crate::contract::{Attempt, Claim, Contender, Mode, RetryHint};
use crate::error::Result;
use crate::net::failure::Failure;
use crate::net::in_doubt::{self, Remnant};
use crate::runtime::BoxFuture;
use crate::timing::{self, Backoff, PATIENCE, patience};

/// The number of grants of which about one sweeps the table.
const SWEEPS: u32 = 256;

/// The longest time for which a claim keeps its place in the queue without a refresh.
const LONGEST: Duration = Duration::from_secs(3);

/// Returns the time for which a claim keeps its place in the queue without a refresh.
fn lifetime(ttl: Duration) -> Duration {
    timing::queue_lifetime(ttl).min(LONGEST)
}

/// What a look has found.
enum Looked {
    Answer(Attempt),
    /// The row has changed, and is now this.
    Changed(Seen),
}

/// A claim that asks for its lock.
pub(super) struct TableContender {
    table: Arc<TableRows>,
    claim: Claim,
    id: String,
    doubts: Doubts,
    /// True if the claim has a line in the table.
    is_there: bool,
    wake: Option<Arc<Notify>>,
    polls: Backoff,
}

impl TableContender {
    pub(super) fn new(table: Arc<TableRows>, claim: Claim) -> Self {
        let (id, doubts) = (claim.id(), Doubts::default());
        Self { table, claim, id, doubts, is_there: false, wake: None, polls: Backoff::polls() }
    }

    /// Returns true if the claim has a line in the table, or may have one or still get one.
    fn may_be_there(&self) -> bool {
        self.is_there || self.doubts.are_open()
    }

    fn patience(&self) -> Duration {
        patience(self.claim.options.ttl)
    }

    /// Returns the place of the claim, for this long from now.
    fn place(&self, now: u64, lifetime: Duration) -> Place {
        let (mode, record) = (self.claim.options.mode, record(&self.claim));
        Place {
            id: self.id.clone(),
            mode,
            fence: 0,
            expires: now + micros(lifetime),
            since: now,
            slots: Vec::new(),
            record,
        }
    }

    /// Tries once.
    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let end = Instant::now().plus(budget);
        let (mut seen, mut failed) = (None, None);
        for _ in 0..TRIES {
            match self.look(seen.take(), end).await {
                Ok(Looked::Answer(attempt)) => return Ok(attempt),
                Ok(Looked::Changed(now)) => seen = Some(now),
                Err(failure) if was_rolled_back(&failure) && !end.passed() => jitter().await,
                Err(failure) if is_in_doubt(&failure) && !end.passed() => failed = Some(failure),
                Err(failure) => return Err(failure.error),
            }
        }
        match failed {
            Some(failure) => Err(failure.error),
            None => Ok(self.busy(Duration::from_millis(250))),
        }
    }

    /// Asks once.
    async fn look(&mut self, seen: Option<Seen>, end: Instant) -> Result<Looked, Failure> {
        let (name, patience) = (self.claim.options.name.clone(), self.patience());
        self.table.settle(&mut self.doubts, patience, end).await?;
        let mut seen = match seen {
            Some(seen) => seen,
            None if self.may_be_there() || self.table.sessions.waits_at_once(&name) => {
                self.table.read(&[&name], patience, end).await?
            }
            None => self.insert(&name, end).await?,
        };
        let mut row = seen.row(&name, &self.id);
        let mine = row.state.find(&self.id);
        self.is_there = mine.is_some();
        self.doubts.are_seen();
        if let Some(held) = mine.filter(|place| place.is_held()).cloned() {
            return Ok(Looked::Answer(self.granted(&seen, held, &row)));
        }
        let Some(grants) = self.step(&mut row.state, seen.now) else {
            return Ok(Looked::Answer(self.waits(&seen, &row.state)));
        };
        let written = self.table.replace(&name, &row, &mut self.doubts, patience, end).await?;
        if !written.done {
            jitter().await;
        }
        if grants || !written.done {
            return Ok(Looked::Changed(written.seen));
        }
        Ok(Looked::Answer(self.waits(&seen, &row.state)))
    }

    /// Takes a lock that has no row.
    async fn insert(&mut self, name: &str, end: Instant) -> Result<Seen, Failure> {
        let mut place = self.place(0, Duration::ZERO);
        if let Mode::Permits { count, .. } = place.mode {
            place.slots = (0..count).collect();
        }
        let (ttl, patience) = (self.claim.options.ttl, self.patience());
        Ok(self.table.insert(name, &place, ttl, &mut self.doubts, patience, end).await?.seen)
    }

    /// Makes the next step of the claim: takes the lock, joins the queue or keeps its place there. Returns true if it takes
    /// the lock. `None`: there is nothing to be written.
    fn step(&self, state: &mut State, now: u64) -> Option<bool> {
        let options = &self.claim.options;
        if state.admits(&self.id, options.mode) {
            state.hold(self.place(now, options.ttl));
            return Some(true);
        }
        let lifetime = lifetime(options.ttl);
        let is_fresh = state.find(&self.id).is_some_and(|mine| mine.left(now) > lifetime * 2 / 3);
        if !self.claim.wait || is_fresh {
            return None;
        }
        state.put(self.place(now, lifetime));
        Some(false)
    }

    /// Returns the answer to a claim that is to wait.
    fn waits(&mut self, seen: &Seen, state: &State) -> Attempt {
        let name = &self.claim.options.name;
        self.table.sessions.is_busy(name);
        if self.claim.wait && self.wake.is_none() {
            self.wake = Some(self.table.waits(name, self.claim.nonce));
        }
        // A little later than the end, so that it has passed by then.
        let next_end = state.next_end().map(|end| Duration::from_micros(end.saturating_sub(seen.now) + 1_000));
        let after = self.polls.next();
        self.busy(next_end.map_or(after, |end| after.min(end)))
    }

    fn busy(&self, after: Duration) -> Attempt {
        let on = self.wake.clone().map(|wake| Box::pin(async move { wake.notified().await }) as BoxFuture<'static, ()>);
        Attempt::Busy(RetryHint { after, on })
    }

    fn granted(&mut self, seen: &Seen, held: Place, row: &Version) -> Attempt {
        self.is_there = false;
        if fastrand::u32(..SWEEPS) == 0 {
            self.table.sweep();
        }
        let ttl = self.claim.options.ttl;
        let since = seen.since(&held, ttl);
        let grant = TableGrant::new(&self.table, &self.claim, held, row);
        Attempt::Granted { grant: Arc::new(grant), since, ttl }
    }

    async fn leave(&mut self) -> Result<()> {
        if !self.may_be_there() {
            return Ok(());
        }
        let (patience, end) = (self.patience(), self.table.end());
        leave(&self.table, &self.claim, &mut self.doubts, patience, end).await?;
        self.is_there = false;
        self.doubts.are_seen();
        Ok(())
    }
}

/// Removes a claim, and makes sure that no write of it is applied any more.
async fn leave(
    table: &TableRows,
    claim: &Claim,
    doubts: &mut Doubts,
    patience: Duration,
    end: Instant,
) -> Result<(), Failure> {
    let removed = async {
        table.settle(doubts, patience, end).await?;
        table.remove(&claim.options.name, &claim.id(), doubts, patience, end).await
    };
    removed.await
}

/// A claim that ended and may have a line in the table, or may still get one.
struct Leftover {
    table: Arc<TableRows>,
    claim: Claim,
    doubts: Doubts,
    pauses: Backoff,
}

impl Remnant for Leftover {
    async fn take_back(&mut self) -> bool {
        let end = self.table.end();
        match leave(&self.table, &self.claim, &mut self.doubts, PATIENCE, end).await {
            Ok(()) => true,
            // Refused for good: the line ends by its ttl.
            Err(failure) => !failure.error.is_temporary(),
        }
    }

    fn pause(&mut self) -> Duration {
        self.pauses.next()
    }
}

impl Drop for TableContender {
    fn drop(&mut self) {
        if self.wake.is_some() {
            self.table.waits_no_more(&self.claim.options.name, self.claim.nonce);
        }
        if self.may_be_there() {
            in_doubt::take_back(Leftover {
                table: self.table.clone(),
                claim: self.claim.clone(),
                doubts: std::mem::take(&mut self.doubts),
                pauses: Backoff::up_to(Duration::from_secs(1)),
            });
        }
    }
}

impl Contender for TableContender {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.leave())
    }
}
