//! A grant of `GET_LOCK`: its session, its renewal and its release.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::session::Session;
use super::shared::GetLock;
use crate::clock::Instant;
use crate::contract::{Claim, Grant, Released, Renewal};
use crate::error::{Error, Result};
use crate::net::failure::{Failure, Outcome};
use crate::net::in_doubt::UnansweredRelease;
use crate::net::request::Refusal;
use crate::runtime::BoxFuture;
use crate::timing::{PATIENCE, patience};

/// A lock that a claim holds.
#[derive(Debug)]
pub(super) struct GetLockGrant {
    mysql: Arc<GetLock>,
    session: Arc<Session>,
    name: Arc<str>,
    nonce: u64,
    fence: u64,
    unanswered: UnansweredRelease,
}

impl GetLockGrant {
    pub(super) fn new(mysql: &Arc<GetLock>, claim: &Claim, session: Arc<Session>, fence: u64) -> Self {
        let (name, unanswered) = (claim.options.name.clone(), UnansweredRelease::default());
        Self { mysql: mysql.clone(), session, name, nonce: claim.nonce, fence, unanswered }
    }

    async fn send_release(&self) -> Result<Released> {
        if self.session.is_over() && !self.unanswered.may_have_released::<()>(&[]) {
            return Ok(Released::NotOurs);
        }
        let released = self.session.ask_release(&self.name, self.nonce);
        match self.session.answer_within(patience(self.session.ttl()), released).await {
            Ok(Released::NotOurs) if self.unanswered.may_have_released::<()>(&[]) => Ok(Released::Yes),
            Ok(released) => Ok(released),
            Err(failure) => {
                self.unanswered.note(&Refusal::<()>::from(Failure::in_doubt(failure.error.clone())));
                self.settle_release(failure).await
            }
        }
    }

    /// Finds out whether a release without an answer was done. The end of the session gives the lock back too.
    async fn settle_release(&self, failure: Failure) -> Result<Released> {
        if self.session.was_cut() {
            // Nobody knows whether it was ours until then.
            return Ok(Released::NotOurs);
        }
        let unknown = |other: Failure| other.error.temporary(true);
        let holder = self.mysql.holder(&self.name, Some(&self.session), PATIENCE).await.map_err(unknown)?;
        if holder.is_some_and(|holder| holder != self.session.id()) {
            return Ok(Released::NotOurs);
        }
        if holder == Some(self.session.id()) {
            if !self.session.is_over() && !self.session.give_up_silent() {
                self.mysql.take_back(&self.session, &self.name, self.nonce);
                return Err(failure.error.temporary(true));
            }
            self.mysql.end(&self.session, PATIENCE).await.map_err(unknown)?;
        }
        Ok(Released::Yes)
    }
}

/// Renews these leases: with one statement for each session, all at the same time.
pub(super) async fn renew(due: &[(&GetLockGrant, Duration)]) -> Vec<Result<Renewal>> {
    let mut asked = HashMap::new();
    for (grant, _) in due {
        let session = &grant.session;
        asked.entry(session.number()).or_insert_with(|| (session, session.ask_check()));
    }
    // A session that is silent keeps the others waiting for no longer than that.
    let shortest = asked.values().map(|(session, _)| session.ttl()).min().unwrap_or_default();
    let end = Instant::now().plus(patience(shortest));
    let mut answers: HashMap<u64, Result<Renewal>> = HashMap::with_capacity(asked.len());
    for (number, (session, answered)) in asked {
        let renewal = match session.answer_within(end.left(), answered).await {
            _ if session.is_over() => Ok(Renewal::Lost),
            Ok(since) => Ok(Renewal::Kept { since, ttl: session.ttl() }),
            Err(Failure { outcome: Outcome::LeaseGone, .. }) => Ok(Renewal::Lost),
            // Only the end of the session ends a lease. Every other error is temporary.
            Err(failure) => Err(failure.error.temporary(true)),
        };
        answers.insert(number, renewal);
    }
    let answer = |grant: &GetLockGrant| {
        let answer = answers.get(&grant.session.number());
        answer.cloned().unwrap_or_else(|| Err(Error::unavailable("no session")))
    };
    let kept = |(grant, asked): &(&GetLockGrant, Duration)| match answer(grant) {
        Ok(Renewal::Kept { ttl, .. }) if *asked > ttl => Err(Error::refused(format!(
            "a lease of MySQL has the ttl of its session, {ttl:?}: acquire the lock with a ttl of {asked:?}"
        ))),
        answer => answer,
    };
    due.iter().map(kept).collect()
}

impl Grant for GetLockGrant {
    fn fences(&self) -> Option<Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn session(&self) -> Option<u64> {
        Some(self.session.number())
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.send_release())
    }
}
