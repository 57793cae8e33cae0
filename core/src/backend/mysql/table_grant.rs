//! A grant of the mode `table`: its renewal and its release.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::table_rows::{Doubts, Seen, TRIES, TableRows, Version, contended, is_in_doubt, jitter, was_rolled_back};
use super::table_state::{Place, State, micros};
use crate::clock::Instant;
use crate::contract::{Claim, Grant, Released, Renewal};
use crate::error::{Error, Result};
use crate::net::failure::Failure;
use crate::net::in_doubt::UnansweredRelease;
use crate::net::request::Refusal;
use crate::runtime::{BoxFuture, lock};
use crate::timing::patience;

/// A lock that a claim holds.
#[derive(Debug)]
pub(super) struct TableGrant {
    table: Arc<TableRows>,
    name: Arc<str>,
    id: String,
    fence: u64,
    slots: Vec<u32>,
    ttl: Duration,
    /// The row, when it was last seen with this claim alone in it: its version, and the end of the lease.
    alone: Mutex<Option<(u64, u64)>>,
    unanswered: UnansweredRelease,
}

impl TableGrant {
    pub(super) fn new(table: &Arc<TableRows>, claim: &Claim, held: Place, row: &Version) -> Self {
        let grant = Self {
            table: table.clone(),
            name: claim.options.name.clone(),
            id: held.id,
            fence: held.fence,
            slots: held.slots,
            ttl: claim.options.ttl,
            alone: Mutex::default(),
            unanswered: UnansweredRelease::default(),
        };
        grant.has_seen(row);
        grant
    }

    /// Notes the row of the lock.
    fn has_seen(&self, row: &Version) {
        let mine = row.state.find(&self.id).filter(|_| row.state.len() == 1);
        *lock(&self.alone) = mine.map(|mine| (row.version, mine.expires));
    }

    async fn send_release(&self) -> Result<Released> {
        match self.give_back().await {
            Ok(Released::NotOurs) if self.unanswered.may_have_released::<()>(&[]) => Ok(Released::Yes),
            Ok(released) => Ok(released),
            Err(failure) => Err(failure.error),
        }
    }

    /// Removes the claim. A release without an answer does no harm when it is applied late: the row has another version.
    async fn give_back(&self) -> Result<Released, Failure> {
        let (patience, end) = (patience(self.ttl), self.table.end());
        let alone = lock(&self.alone).take();
        let mut seen = None;
        if let Some((version, expires)) = alone {
            let written = self.write(&Version { version, state: State::default() }, end).await?;
            if written.1 {
                return Ok(if written.0.now < expires { Released::Yes } else { Released::NotOurs });
            }
            seen = Some(written.0);
        }
        for _ in 0..TRIES {
            let mut now = match seen.take() {
                Some(seen) => seen,
                None => self.table.read(&[&self.name], patience, end).await?,
            };
            let mut row = now.row(&self.name, "");
            if !row.state.remove(now.now, &self.id) {
                return Ok(Released::NotOurs);
            }
            let (after, done) = self.write(&row, end).await?;
            if done {
                return Ok(Released::Yes);
            }
            seen = Some(after);
            jitter().await;
        }
        Err(contended(&self.name))
    }

    /// Writes the row without the claim. Returns the row after it, and true if it was written.
    async fn write(&self, row: &Version, end: Instant) -> Result<(Seen, bool), Failure> {
        let mut doubts = Doubts::default();
        match self.table.replace(&self.name, row, &mut doubts, patience(self.ttl), end).await {
            Ok(written) => {
                if written.done {
                    self.table.wake(&self.name);
                }
                Ok((written.seen, written.done))
            }
            Err(failure) => {
                // Also after an error of the server, which may be that of the read.
                self.unanswered.note(&Refusal::<()>::from(Failure::in_doubt(failure.error.clone())));
                Err(failure)
            }
        }
    }
}

/// A renewal that is under way.
struct Renewing<'a> {
    grant: &'a TableGrant,
    ttl: Duration,
    /// The end that was written, and the time from which the ttl counts then.
    target: Option<(u64, Instant)>,
    answer: Option<Result<Renewal>>,
}

/// Renews these leases: with one request that reads and one that writes, if nobody else changes the rows meanwhile.
pub(super) async fn renew(table: &TableRows, due: &[(&TableGrant, Duration)]) -> Vec<Result<Renewal>> {
    let mut all: Vec<_> =
        due.iter().map(|(grant, ttl)| Renewing { grant, ttl: *ttl, target: None, answer: None }).collect();
    let shortest = due.iter().map(|(_, ttl)| *ttl).min().unwrap_or_default();
    let end = Instant::now().plus(shortest.min(table.end().left()));
    let error = match renew_all(table, &mut all, patience(shortest), end).await {
        Ok(()) => Error::unavailable("the rows of these locks change faster than a request; try again"),
        // Only the end of its line ends a lease. Every other error is temporary.
        Err(failure) => failure.error.temporary(true),
    };
    all.into_iter().map(|one| one.answer.unwrap_or_else(|| Err(error.clone()))).collect()
}

async fn renew_all(
    table: &TableRows,
    all: &mut [Renewing<'_>],
    patience: Duration,
    end: Instant,
) -> Result<(), Failure> {
    let mut seen = None;
    for _ in 0..TRIES {
        let mut names: Vec<&str> = all.iter().filter(|one| one.answer.is_none()).map(|one| &*one.grant.name).collect();
        // All clients lock the rows in this order.
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let mut now = match seen.take() {
            Some(seen) => seen,
            None => table.read(&names, patience, end).await?,
        };
        let rows = next_rows(all, &mut now);
        if rows.is_empty() {
            continue;
        }
        let writes: Vec<_> = names.iter().filter_map(|name| Some((*name, rows.get(*name)?))).collect();
        match table.replace_all(&writes, patience, end).await {
            Ok(after) => seen = Some(after),
            Err(failure) if was_rolled_back(&failure) && !end.passed() => jitter().await,
            Err(failure) if is_in_doubt(&failure) && !end.passed() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Answers the renewals that are done, and returns the rows that are to be written for the others.
fn next_rows(all: &mut [Renewing<'_>], seen: &mut Seen) -> HashMap<Arc<str>, Version> {
    let (mut rows, mut changed) = (HashMap::new(), Vec::new());
    for one in all.iter_mut().filter(|one| one.answer.is_none()) {
        let grant = one.grant;
        let row: &mut Version = rows.entry(grant.name.clone()).or_insert_with(|| seen.row(&grant.name, ""));
        let expires = row.state.find(&grant.id).filter(|place| place.is_held()).map(|place| place.expires);
        match (expires, one.target) {
            (None, _) => one.answer = Some(Ok(Renewal::Lost)),
            (Some(expires), Some((target, since))) if expires >= target => {
                one.answer = Some(Ok(Renewal::Kept { since, ttl: one.ttl }));
                grant.has_seen(row);
            }
            (Some(_), _) => {
                one.target = Some((seen.now + micros(one.ttl), seen.sent));
                if row.state.renew(seen.now, &grant.id, one.ttl) {
                    changed.push(grant.name.clone());
                } else {
                    one.answer = Some(Ok(Renewal::Lost));
                }
            }
        }
    }
    rows.retain(|name, _| changed.contains(name));
    rows
}

impl Grant for TableGrant {
    fn fences(&self) -> Option<Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn slots(&self) -> &[u32] {
        &self.slots
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.send_release())
    }
}
