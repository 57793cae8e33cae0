//! A grant: what proves it, and how it is kept and given back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp};
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use super::Etcd;
use super::contender::patience;
use super::link::{Limits, Refusal, Unanswered};
use super::mutex::{get, leave, txn};
use super::orphans::{self, Ghost};
use super::session::{Session, seconds};
use super::watch::Interest;
use crate::clock::Instant;
use crate::contract::Claim;
use crate::contract::{Grant, Released, Renewal};
use crate::error::{Error, Result};
use crate::runtime::BoxFuture;
use crate::runtime::lock;

/// Of so many leases that are due together each key is read.
const FEW: usize = 16;
/// How many keys are read at a time.
const LOOKS: usize = 64;

pub(super) struct Held {
    etcd: Arc<Etcd>,
    claim: Claim,
    key: Vec<u8>,
    value: Vec<u8>,
    rev: i64,
    /// The lease that the key has; while it isn't known to which of several it was attached, all of them.
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Tells of the end of the key, if somebody listens for this lock anyway.
    interest: Mutex<Option<Interest>>,
    doubt: Mutex<Unanswered>,
    /// Whether a release was sent and had no answer.
    unanswered: AtomicBool,
}

impl Held {
    pub(super) fn new(
        etcd: Arc<Etcd>,
        claim: Claim,
        (key, value): (Vec<u8>, Vec<u8>),
        rev: i64,
        session: Arc<Session>,
        interest: Option<Interest>,
        doubt: Unanswered,
    ) -> Self {
        if let Some(interest) = &interest {
            interest.hold(rev);
        }
        Self {
            etcd,
            claim,
            key,
            value,
            rev,
            sessions: Mutex::new(vec![session]),
            interest: Mutex::new(interest),
            doubt: Mutex::new(doubt),
            unanswered: AtomicBool::new(false),
        }
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).clone()
    }

    async fn give(&self) -> Result<Released> {
        if let Some(interest) = &*lock(&self.interest) {
            interest.let_go();
        }
        let limits = self.etcd.link.limits(patience(self.claim.options.ttl));
        let answer = match leave(&self.etcd.link, limits, (&self.key, &self.value), self.rev).await {
            Ok(answer) => answer,
            Err(refusal) => {
                if refusal.is_unknown() {
                    self.unanswered.store(true, Ordering::Release);
                }
                return Err(refusal.into());
            }
        };
        let again = !answer.unanswered.is_empty() || self.unanswered.load(Ordering::Acquire);
        let again = again && !mutant!("etcd-release-forgets-doubt");
        // The next contender of this process finds the watcher; one's own lease ends with the last who has it.
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        drop(lock(&self.interest).take());
        let doubt = std::mem::take(&mut *lock(&self.doubt));
        if !doubt.is_empty() {
            self.haunted(&sessions, doubt);
        }
        // Not ours any more, after an earlier release whose answer was lost: that one gave it back.
        if !answer.value && !again {
            return Ok(Released::NotOurs);
        }
        Ok(Released::Yes)
    }

    /// The key may still be there, or be put.
    fn haunted(&self, sessions: &[Arc<Session>], unanswered: Unanswered) {
        // One's own lease takes it with it.
        let Some(session) = sessions.iter().find(|session| !session.own) else { return };
        let (key, value) = (self.key.clone(), self.value.clone());
        self.etcd.sessions.retire(session);
        orphans::settle(self.etcd.link.clone(), session, Ghost { key, value, unanswered });
    }

    /// Attaches the key to a lease with a longer ttl.
    async fn lengthen(&self, ttl: Duration, limits: Limits) -> Result<(), Refusal> {
        let own = !self.claim.options.auto_renew;
        let mut longer = self.etcd.sessions.pick(ttl, own, self.key.len(), limits).await?;
        // Alive from now on, so that it ends after the one that the key has had.
        while !longer.keep_alive(limits, Instant::now()).await? {
            longer = self.etcd.sessions.pick(ttl, own, self.key.len(), limits).await?;
        }
        let put = PutOptions::new().with_lease(longer.id);
        let request = Txn::new()
            .when([Compare::create_revision(self.key.clone(), CompareOp::Equal, self.rev)])
            .and_then([TxnOp::put(self.key.clone(), self.value.clone(), Some(put))]);
        match txn(&self.etcd.link, limits, &request).await {
            Ok(answer) => {
                if answer.value.succeeded() {
                    *lock(&self.sessions) = vec![longer];
                }
                Ok(())
            }
            Err(refusal) => {
                if refusal.is_unknown() {
                    lock(&self.sessions).push(longer);
                }
                Err(refusal)
            }
        }
    }

    /// Until when the server keeps it, from its sessions.
    fn kept(&self) -> Renewal {
        let ends = self.sessions().into_iter().filter(|session| !session.is_over());
        let first = ends.min_by_key(|session| session.since().plus(session.ttl));
        first.map_or(Renewal::Lost, |session| Renewal::Kept { since: session.since(), ttl: session.ttl })
    }
}

/// Renews these: one keep-alive for each session, and a look whether the keys are there.
pub(super) async fn renew(etcd: &Etcd, due: &[(&Held, Duration)]) -> Vec<Result<Renewal>> {
    let shortest = due.iter().map(|(_, ttl)| *ttl).min().unwrap_or_default();
    let budget = etcd.link.config.connect_timeout().min(shortest);
    let limits = Limits { patience: patience(shortest), budget };
    let mut failed: Vec<Option<Error>> = Vec::new();
    for (held, ttl) in due {
        let longest = held.sessions().iter().map(|session| seconds(session.ttl)).max();
        let longer = longest.is_some_and(|longest| seconds(*ttl) > longest);
        let done = if longer { Box::pin(held.lengthen(*ttl, limits)).await } else { Ok(()) };
        failed.push(done.err().map(Error::from));
    }
    let (alive, there) = tokio::join!(keep_alive(sessions(due), limits), there(etcd, due, limits));
    let mut answers = Vec::with_capacity(due.len());
    for (((held, _), failed), there) in due.iter().zip(failed).zip(there) {
        let over = held.sessions().iter().any(|session| session.is_over());
        // Only the server's word ends a lease: whatever else it said is asked again.
        answers.push(match (there, failed.as_ref().or(alive.as_ref().err())) {
            (Ok(false), _) => Ok(Renewal::Lost),
            _ if over => Ok(Renewal::Lost),
            (Err(error), _) => Err(error.temporary(true)),
            (Ok(true), Some(error)) => Err(error.clone().temporary(true)),
            (Ok(true), None) => Ok(held.kept()),
        });
    }
    answers
}

/// The sessions of all these, each once.
fn sessions(due: &[(&Held, Duration)]) -> BTreeMap<i64, Arc<Session>> {
    due.iter().flat_map(|(held, _)| held.sessions()).map(|session| (session.id, session)).collect()
}

/// Keeps them alive, each unless that was done just now. An error where one of them didn't answer.
async fn keep_alive(sessions: BTreeMap<i64, Arc<Session>>, limits: Limits) -> Result<()> {
    let mut all = JoinSet::new();
    for session in sessions.into_values() {
        let not_before = Instant::now().minus(session.ttl / 20);
        all.spawn(async move { session.keep_alive(limits, not_before).await });
    }
    let mut result = Ok(());
    while let Some(done) = all.join_next().await {
        match done {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => result = Err(refusal.into()),
            Err(_) => result = Err(Error::unavailable("a keep-alive was given up")),
        }
    }
    result
}

/// Which of their keys are there. Read one by one, or, where they are many, in the lists that the server keeps of each lease.
async fn there(etcd: &Etcd, due: &[(&Held, Duration)], limits: Limits) -> Vec<Result<bool>> {
    let (mut lists, mut failed) = (Vec::new(), None);
    if due.len() > FEW {
        for id in sessions(due).into_keys() {
            let list = etcd.link.ask(limits, |conn| async move {
                let options = LeaseTimeToLiveOptions::new().with_keys();
                conn.client.lease_client().time_to_live(id, Some(options)).await
            });
            match list.await {
                Ok(list) => lists.push(list),
                Err(refusal) => failed = Some(Error::from(refusal)),
            }
        }
    }
    let listed: FxHashSet<&Vec<u8>> = lists.iter().flat_map(|list| list.value.keys()).collect();
    let (mut found, mut unlisted) = (Vec::with_capacity(due.len()), Vec::new());
    for (at, (held, _)) in due.iter().enumerate() {
        let listed = listed.contains(&held.key);
        found.push(failed.clone().filter(|_| !listed).map_or(Ok(listed), Err));
        if matches!(found[at], Ok(false)) {
            unlisted.push(at);
        }
    }
    // A list may lag behind what it doesn't show.
    for chunk in unlisted.chunks(LOOKS) {
        let mut looks = JoinSet::new();
        for at in chunk {
            let (held, at, link) = (due[*at].0, *at, etcd.link.clone());
            let (key, rev) = (held.key.clone(), held.rev);
            looks.spawn(async move {
                let own = get(&link, limits, &key, &GetOptions::new().with_keys_only()).await;
                (at, own.map(|own| own.value.kvs().first().is_some_and(|own| own.create_revision() == rev)))
            });
        }
        while let Some(look) = looks.join_next().await {
            match look {
                Ok((at, own)) => found[at] = own.map_err(Error::from),
                Err(_) => return due.iter().map(|_| Err(Error::unavailable("a look was given up"))).collect(),
            }
        }
    }
    found
}

impl Grant for Held {
    fn fences(&self) -> Option<Range<u64>> {
        let fence = u64::try_from(self.rev).ok()?;
        Some(fence..fence + 1)
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.give())
    }
}

/// A release that wasn't confirmed in time goes on in the background: the lease may live on for others.
impl Drop for Held {
    fn drop(&mut self) {
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        if !sessions.is_empty() {
            self.haunted(&sessions, Unanswered::new());
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("claim", &self.claim.nonce).field("rev", &self.rev).finish_non_exhaustive()
    }
}
