//! A grant: its proof, its renewal and its release.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::protocol::{Request, Stat, code};
use super::session::{Refusal, Session, TOGETHER};
use super::shared::{ZooKeeper, stat_of};
use super::watch::Watcher;
use crate::clock::Instant;
use crate::contract::{Claim, Grant, Released, Renewal};
use crate::error::{Error, Result};
use crate::net::failure::Outcome;
use crate::net::in_doubt::UnansweredRelease;
use crate::runtime::{BoxFuture, lock};
use crate::timing::{self, patience};

/// A lock that a claim holds.
pub(super) struct ZooKeeperGrant {
    zookeeper: Arc<ZooKeeper>,
    session: Arc<Session>,
    name: Arc<str>,
    path: String,
    created: i64,
    ttl: Duration,
    slots: Vec<u32>,
    /// The watch on the node, from the first renewal on.
    watcher: Mutex<Option<Arc<Watcher>>>,
    unanswered: UnansweredRelease,
}

impl ZooKeeperGrant {
    /// Returns the grant of a claim, which has the node of this path.
    pub(super) fn new(
        zookeeper: &Arc<ZooKeeper>,
        claim: &Claim,
        session: Arc<Session>,
        path: String,
        created: i64,
        slots: Vec<u32>,
    ) -> Self {
        Self {
            zookeeper: zookeeper.clone(),
            session,
            name: claim.options.name.clone(),
            path,
            created,
            ttl: claim.options.ttl,
            slots,
            watcher: Mutex::new(None),
            unanswered: UnansweredRelease::default(),
        }
    }

    /// Returns true if the node is watched, and nothing has happened to it.
    fn is_watched(&self) -> bool {
        lock(&self.watcher).as_ref().is_some_and(|watcher| !watcher.has_fired())
    }

    /// Sends the release.
    async fn send_release(&self) -> Result<Released> {
        drop(lock(&self.watcher).take());
        self.session.state().watches.tidy(&self.path);
        let limits = self.session.link.limits(patience(self.ttl));
        let answer = self.session.ask(Request::Delete { path: self.path.clone() }, limits).await;
        match answer {
            Ok(reply) => {
                let gone = reply.code == code::NO_NODE && !self.unanswered.may_have_released::<()>(&[]);
                Ok(if gone { Released::NotOurs } else { Released::Yes })
            }
            Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => Ok(Released::NotOurs),
            Err(refusal) => {
                self.unanswered.note(&refusal);
                // No further claim prolongs the session, which keeps the node.
                self.zookeeper.sessions.retire(&self.session);
                Err(refusal.into())
            }
        }
    }
}

/// Renews these leases: with one request for each session, and one for each node that isn't watched yet.
pub(super) async fn renew(zookeeper: &ZooKeeper, due: &[(&ZooKeeperGrant, Duration)]) -> Vec<Result<Renewal>> {
    let mut answers: Vec<Option<Result<Renewal>>> = due.iter().map(|_| None).collect();
    while let Some(first) = answers.iter().position(Option::is_none) {
        let session = due[first].0.session.clone();
        let same: Vec<_> = (first..due.len())
            .filter(|at| answers[*at].is_none() && Arc::ptr_eq(&due[*at].0.session, &session))
            .collect();
        let found = renew_session(zookeeper, &session, &same.iter().map(|at| due[*at]).collect::<Vec<_>>()).await;
        for (at, answer) in same.into_iter().zip(found) {
            answers[at] = Some(answer);
        }
    }
    answers.into_iter().flatten().collect()
}

/// Renews the leases of one session.
async fn renew_session(
    zookeeper: &ZooKeeper,
    session: &Arc<Session>,
    due: &[(&ZooKeeperGrant, Duration)],
) -> Vec<Result<Renewal>> {
    let ttl = session.ttl();
    let limits = zookeeper.sessions.limits(patience(ttl));
    let not_before = Instant::now().minus(timing::shared_keep_alive(ttl));
    match session.keep_alive(limits, not_before).await {
        Ok(true) => {}
        Ok(false) => return due.iter().map(|_| Ok(Renewal::Lost)).collect(),
        // Only the server's word ends a lease. Every other error is temporary.
        Err(refusal) => {
            let error = Error::from(refusal).temporary(true);
            return due.iter().map(|_| Err(error.clone())).collect();
        }
    }
    let since = session.since();
    let mut answers = Vec::with_capacity(due.len());
    for some in due.chunks(TOGETHER) {
        let unwatched: Vec<_> = some.iter().map(|(grant, _)| *grant).filter(|grant| !grant.is_watched()).collect();
        let watch = |grant: &&ZooKeeperGrant| {
            // Before the request: the event may come at once.
            *lock(&grant.watcher) = Some(session.state().watches.add(&grant.path, Some(&grant.name)));
            Request::Exists { path: grant.path.clone(), watch: true }
        };
        let requests: Vec<_> = unwatched.iter().map(watch).collect();
        let found = session.ask_all(&requests, limits).await;
        let found = found.and_then(|replies| replies.iter().map(|reply| stat_of(session, reply)).collect());
        if matches!(&found, Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone) {
            return due.iter().map(|_| Ok(Renewal::Lost)).collect();
        }
        let mut found = found.map(Vec::into_iter).map_err(|refusal: Refusal| Error::from(refusal).temporary(true));
        for (grant, asked) in some {
            let is_asked = unwatched.iter().any(|other| std::ptr::eq(*other, *grant));
            let ours = match &mut found {
                Ok(found) => !is_asked || is_ours(grant, found.next().flatten()),
                Err(error) if is_asked => {
                    drop(lock(&grant.watcher).take());
                    answers.push(Err(error.clone()));
                    continue;
                }
                Err(_) => true,
            };
            answers.push(match ours {
                false => Ok(Renewal::Lost),
                true if *asked > ttl => Err(Error::refused(format!(
                    "a lease of ZooKeeper has the ttl of its session, {ttl:?}: acquire the lock with a ttl of {asked:?}"
                ))),
                true => Ok(Renewal::Kept { since, ttl }),
            });
        }
    }
    answers
}

/// Returns true if the node is the one that was created for the grant.
fn is_ours(grant: &ZooKeeperGrant, found: Option<Stat>) -> bool {
    found.is_some_and(|found| found.created == grant.created)
}

impl Grant for ZooKeeperGrant {
    fn fences(&self) -> Option<Range<u64>> {
        let fence = u64::try_from(self.created).ok()?;
        Some(fence..fence + 1)
    }

    fn session(&self) -> Option<u64> {
        Some(self.session.state().number)
    }

    fn slots(&self) -> &[u32] {
        &self.slots
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.send_release())
    }
}

impl std::fmt::Debug for ZooKeeperGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZooKeeperGrant").field("path", &self.path).field("fence", &self.created).finish_non_exhaustive()
    }
}
