//! A contender of `GET_LOCK`: one claim, from its first try to a grant or its withdrawal.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::asks::{Tried, Waited};
use super::error;
use super::grant::GetLockGrant;
use super::session::Session;
use super::shared::GetLock;
use crate::clock::Instant;
use crate::contract::{Attempt, Claim, Contender, Released, RetryHint};
use crate::error::Result;
use crate::net::failure::{Failure, Outcome};
use crate::net::request::answer_within;
use crate::runtime::{self, BoxFuture};
use crate::timing::{self, Backoff, PATIENCE, patience};

/// The number of requests in a row before a contender pauses.
const LOOKS: u32 = 8;

/// A claim that asks for its lock.
pub(super) struct GetLockContender {
    mysql: Arc<GetLock>,
    claim: Claim,
    waiting: Option<Waiting>,
    /// True if the server takes no more sessions, so that the claim tries on one that there is.
    is_full: bool,
    /// The pauses where there is no session to wait in.
    polls: Backoff,
}

/// A wait at the server.
struct Waiting {
    session: Arc<Session>,
    answer: watch::Receiver<Waited>,
    /// The number of times in a row that the lock was free or ours, and no answer came.
    unanswered: u32,
}

impl Waiting {
    fn answer(&self) -> Waited {
        let answer = self.answer.borrow().clone();
        // The session's task has ended.
        answer.or_else(|| self.answer.has_changed().is_err().then_some(Ok(Tried::Busy)))
    }

    /// Returns the time of the next look, and the answer before it.
    fn hint(&self) -> RetryHint {
        let ttl = self.session.ttl();
        let after = if self.unanswered == 0 { timing::queue_refresh(ttl) } else { patience(ttl) };
        let mut answer = self.answer.clone();
        let on = async move { drop(answer.wait_for(Option::is_some).await) };
        RetryHint { after, on: Some(Box::pin(on)) }
    }
}

/// A try that may take the lock when nobody waits for it any more. Then the lock is given back.
struct Leftover<'a> {
    mysql: &'a Arc<GetLock>,
    session: &'a Arc<Session>,
    claim: &'a Claim,
    settled: bool,
}

impl Drop for Leftover<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.mysql.take_back(self.session, &self.claim.options.name, self.claim.nonce);
        }
    }
}

impl GetLockContender {
    pub(super) fn new(mysql: Arc<GetLock>, claim: Claim) -> Self {
        Self { mysql, claim, waiting: None, is_full: false, polls: Backoff::polls() }
    }

    /// Tries once.
    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let end = Instant::now().plus(budget);
        let mut failed = None;
        for _ in 0..LOOKS {
            match self.look(end).await {
                Ok(Some(attempt)) => return Ok(attempt),
                Ok(None) => {}
                // The lock can't be held by a session that has ended.
                Err(failure) if failure.outcome == Outcome::LeaseGone && !end.passed() => failed = Some(failure),
                Err(failure) => return Err(failure.error),
            }
        }
        match failed {
            Some(failure) => Err(failure.error),
            None => Ok(Attempt::Busy(RetryHint { after: self.polls.next(), on: None })),
        }
    }

    /// Asks once. `None`: ask again at once.
    async fn look(&mut self, end: Instant) -> Result<Option<Attempt>, Failure> {
        let options = &self.claim.options;
        if let Some(waiting) = &self.waiting {
            return match waiting.answer() {
                None => self.watched(end).await,
                Some(Ok(Tried::Granted { sent, fence })) => self.waited(sent, fence, end).await,
                Some(Ok(Tried::Busy)) => {
                    self.waiting = None;
                    Ok(None)
                }
                Some(Err(failure)) => {
                    self.waiting = None;
                    Err(failure)
                }
            };
        }
        let sessions = &self.mysql.sessions;
        let dedicated = !options.auto_renew;
        if self.claim.wait && !self.is_full && (dedicated || sessions.waits_at_once(&options.name)) {
            return self.wait(end).await;
        }
        let (session, _chosen) = if dedicated {
            (sessions.begin(options.ttl, true, end.left()).await?, None)
        } else {
            let chosen = sessions.choose(options.ttl, end.left()).await?;
            (chosen.session().clone(), Some(chosen))
        };
        match self.tried(&session, end).await? {
            None => Ok(None),
            Some(Tried::Granted { sent, fence }) => Ok(Some(self.granted(session, sent, fence))),
            Some(Tried::Busy) if !self.claim.wait => {
                Ok(Some(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None })))
            }
            Some(Tried::Busy) if self.is_full => {
                self.is_full = false;
                Ok(Some(Attempt::Busy(RetryHint { after: self.polls.next(), on: None })))
            }
            Some(Tried::Busy) => {
                self.mysql.sessions.is_busy(&self.claim.options.name);
                self.wait(end).await
            }
        }
    }

    /// Tries on a session. `None`: there was no answer; ask again at once.
    async fn tried(&self, session: &Arc<Session>, end: Instant) -> Result<Option<Tried>, Failure> {
        let (name, nonce) = (&self.claim.options.name, self.claim.nonce);
        let answered = session.ask_try(name, nonce);
        let mut leftover = Leftover { mysql: &self.mysql, session, claim: &self.claim, settled: false };
        let tried = session.answer_within(patience(session.ttl()).min(end.left()), answered).await;
        leftover.settled = !matches!(&tried, Err(failure) if failure.outcome == Outcome::InDoubt);
        match tried {
            Err(failure) if !leftover.settled && !end.passed() => {
                session.leave(name, nonce);
                let is_ours = self.mysql.holder(name, Some(session), end.left()).await? == Some(session.id());
                if session.give_up_silent() {
                    self.mysql.end(session, end.left()).await?;
                } else if is_ours && session.holds(name, nonce) {
                    return Err(failure);
                }
                Ok(None)
            }
            tried => tried.map(Some),
        }
    }

    /// Begins to wait at the server. `None`: there is no session to wait in; ask again at once.
    async fn wait(&mut self, end: Instant) -> Result<Option<Attempt>, Failure> {
        let options = &self.claim.options;
        let session = match self.mysql.sessions.take(options.ttl, !options.auto_renew, end.left()).await {
            Ok(session) => session,
            Err(failure) if error::is_full(&failure.error) && options.auto_renew => {
                self.is_full = true;
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let answer = session.ask_wait(&options.name, self.claim.nonce, options.wait);
        let waiting = self.waiting.insert(Waiting { session, answer, unanswered: 0 });
        Ok(Some(Attempt::Busy(waiting.hint())))
    }

    /// Looks whether the wait still goes on at the server.
    async fn watched(&mut self, end: Instant) -> Result<Option<Attempt>, Failure> {
        let Some(waiting) = &mut self.waiting else { return Ok(None) };
        let holder = match self.mysql.holder(&self.claim.options.name, None, end.left()).await {
            // There is no session to ask in. The wait goes on.
            Err(failure) if error::is_full(&failure.error) => return Ok(Some(Attempt::Busy(waiting.hint()))),
            holder => holder?,
        };
        if waiting.answer().is_some() {
            return Ok(None);
        }
        if holder.is_some_and(|holder| holder != waiting.session.id()) {
            waiting.unanswered = 0;
        } else {
            waiting.unanswered += 1;
        }
        if waiting.unanswered < 3 {
            return Ok(Some(Attempt::Busy(waiting.hint())));
        }
        // The answer is lost, or the connection is.
        waiting.session.give_up();
        self.mysql.end(&waiting.session, end.left()).await?;
        self.waiting = None;
        Ok(None)
    }

    /// Takes what a wait was granted. The ttl counts from the last statement that was sent.
    async fn waited(&mut self, sent: Instant, fence: u64, end: Instant) -> Result<Option<Attempt>, Failure> {
        let Some(waiting) = &self.waiting else { return Ok(None) };
        let session = waiting.session.clone();
        let ttl = session.ttl();
        let limit = if self.claim.options.auto_renew { timing::session_refresh } else { timing::dedicated_limit };
        let sent = if sent.plus(limit(ttl)).passed() {
            match session.answer_within(end.left(), session.ask_check()).await {
                Ok(sent) => sent,
                Err(failure) => {
                    if failure.outcome == Outcome::LeaseGone {
                        self.waiting = None;
                    }
                    return Err(failure);
                }
            }
        } else {
            sent
        };
        self.waiting = None;
        Ok(Some(self.granted(session, sent, fence)))
    }

    fn granted(&self, session: Arc<Session>, since: Instant, fence: u64) -> Attempt {
        let ttl = session.ttl();
        let grant = GetLockGrant::new(&self.mysql, &self.claim, session, fence);
        Attempt::Granted { grant: Arc::new(grant), since, ttl }
    }
}

/// Ends a wait, and gives back what it was granted.
async fn end_wait(mysql: &GetLock, claim: &Claim, waiting: &mut Waiting) -> Result<()> {
    let session = waiting.session.clone();
    if waiting.answer().is_none() {
        let patience = patience(claim.options.ttl);
        let stopped = mysql.stop_statement(&session, patience).await.is_ok();
        let answered = async { drop(waiting.answer.wait_for(Option::is_some).await) };
        let patience = if stopped { patience } else { Duration::ZERO };
        if answer_within(patience, answered).await.is_none() && waiting.answer().is_none() {
            // The server frees what a connection holds that is closed.
            session.leave(&claim.options.name, claim.nonce);
            if session.give_up() {
                return Ok(());
            }
        }
    }
    if !matches!(waiting.answer(), Some(Ok(Tried::Busy) | Err(_))) {
        let released = session.ask_release(&claim.options.name, claim.nonce);
        match session.answer_within(mysql.sessions.limits(PATIENCE).patience, released).await {
            Ok(Released::Yes | Released::NotOurs) => {}
            Err(failure) if failure.outcome == Outcome::LeaseGone => {}
            Err(failure) => return Err(failure.error),
        }
    }
    Ok(())
}

impl Drop for GetLockContender {
    fn drop(&mut self) {
        let Some(mut waiting) = self.waiting.take() else { return };
        let (mysql, claim) = (self.mysql.clone(), self.claim.clone());
        runtime::spawn_tracked(async move {
            if end_wait(&mysql, &claim, &mut waiting).await.is_err() {
                mysql.take_back(&waiting.session, &claim.options.name, claim.nonce);
            }
        });
    }
}

impl Contender for GetLockContender {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if let Some(waiting) = &mut self.waiting {
                end_wait(&self.mysql, &self.claim, waiting).await?;
                self.waiting = None;
            }
            Ok(())
        })
    }
}
