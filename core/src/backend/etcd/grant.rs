//! A grant: its proof, its renewal and its release.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp};
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use super::mutex::{delete_if_ours, get, txn};
use super::orphans::{self, Orphan};
use super::request::{Refusal, Unanswered};
use super::session::Session;
use super::shared::Etcd;
use super::watch::Subscription;
use crate::clock::Instant;
use crate::contract::{Claim, Grant, Released, Renewal};
use crate::error::{Error, Result};
use crate::net::in_doubt::UnansweredRelease;
use crate::net::request::Limits;
use crate::net::ttl_classes::seconds;
use crate::runtime::{BoxFuture, lock};
use crate::timing::{patience, shared_keep_alive};

/// The number of leases due together up to which each key is read on its own.
const FEW: usize = 16;
/// The number of keys that are read at a time.
const LOOKS: usize = 64;

/// A lock that a claim holds.
pub(super) struct EtcdGrant {
    etcd: Arc<Etcd>,
    claim: Claim,
    key: Vec<u8>,
    value: Vec<u8>,
    rev: i64,
    /// The key's lease, or all that it may have after an attachment without an answer.
    sessions: Mutex<Vec<Arc<Session>>>,
    /// The subscription to the deletion of the key, if this process watches the lock anyway.
    subscription: Mutex<Option<Subscription>>,
    in_doubt: Mutex<Unanswered>,
    unanswered: UnansweredRelease,
}

impl EtcdGrant {
    pub(super) fn new(
        etcd: Arc<Etcd>,
        claim: Claim,
        (key, value): (Vec<u8>, Vec<u8>),
        rev: i64,
        session: Arc<Session>,
        subscription: Option<Subscription>,
        in_doubt: Unanswered,
    ) -> Self {
        if subscription.as_ref().is_some_and(|subscription| subscription.listener.begin_hold(rev)) {
            etcd.watches.suspect(&claim.options.name);
        }
        Self {
            etcd,
            claim,
            key,
            value,
            rev,
            sessions: Mutex::new(vec![session]),
            subscription: Mutex::new(subscription),
            in_doubt: Mutex::new(in_doubt),
            unanswered: UnansweredRelease::default(),
        }
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).clone()
    }

    /// Sends the release.
    async fn send_release(&self) -> Result<Released> {
        if let Some(subscription) = &*lock(&self.subscription) {
            subscription.listener.end_hold();
        }
        let limits = self.etcd.link.limits(patience(self.claim.options.ttl));
        let answer = delete_if_ours(&self.etcd.link, limits, (&self.key, &self.value), self.rev).await;
        let answer = answer.inspect_err(|refusal| self.unanswered.note(refusal))?;
        let again = self.unanswered.may_have_released(&answer.unanswered) && !mutant!("etcd-release-forgets-doubt");
        // The next contender of this process finds the watcher. A dedicated lease ends when its last owner drops it.
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        drop(lock(&self.subscription).take());
        let in_doubt = std::mem::take(&mut *lock(&self.in_doubt));
        if !in_doubt.is_empty() {
            self.take_back(&sessions, in_doubt);
        }
        // If the answer to an earlier release was lost, that release may have been applied.
        if !answer.value && !again {
            return Ok(Released::NotOurs);
        }
        Ok(Released::Yes)
    }

    /// Takes back the key, which may still exist or be put.
    fn take_back(&self, sessions: &[Arc<Session>], unanswered: Unanswered) {
        // The end of a dedicated lease deletes the key.
        let Some(session) = sessions.iter().find(|session| !session.dedicated) else { return };
        let (key, value) = (self.key.clone(), self.value.clone());
        self.etcd.sessions.retire(session);
        orphans::take_back(self.etcd.link.clone(), session, Orphan { key, value, unanswered });
    }

    /// Attaches the key to a lease with a longer ttl.
    async fn lengthen(&self, ttl: Duration, limits: Limits) -> Result<(), Refusal> {
        let dedicated = !self.claim.options.auto_renew;
        let mut longer = self.etcd.sessions.pick(ttl, dedicated, self.key.len(), limits).await?;
        // Kept alive now, so that it ends after the key's present lease.
        while !longer.keep_alive(limits, Instant::now()).await? {
            longer = self.etcd.sessions.pick(ttl, dedicated, self.key.len(), limits).await?;
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
                if refusal.is_in_doubt() {
                    lock(&self.sessions).push(longer);
                }
                Err(refusal)
            }
        }
    }

    /// Returns the time until which the server keeps the lock, according to its sessions.
    fn renewal(&self) -> Renewal {
        let ends = self.sessions().into_iter().filter(|session| !session.is_over());
        let first = ends.min_by_key(|session| session.since().plus(session.ttl));
        first.map_or(Renewal::Lost, |session| Renewal::Kept { since: session.since(), ttl: session.ttl })
    }
}

/// Renews these leases: one keep-alive for each session, and a check that the keys exist.
pub(super) async fn renew(etcd: &Etcd, due: &[(&EtcdGrant, Duration)]) -> Vec<Result<Renewal>> {
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
    let (alive, present) = tokio::join!(keep_alive(sessions(due), limits), keys_present(etcd, due, limits));
    let mut answers = Vec::with_capacity(due.len());
    for (((held, _), failed), present) in due.iter().zip(failed).zip(present) {
        let over = held.sessions().iter().any(|session| session.is_over());
        // Only the server's answer "not ours" ends a lease. Every other error is temporary.
        answers.push(match (present, failed.as_ref().or(alive.as_ref().err())) {
            (Ok(false), _) => Ok(Renewal::Lost),
            _ if over => Ok(Renewal::Lost),
            (Err(error), _) => Err(error.temporary(true)),
            (Ok(true), Some(error)) => Err(error.clone().temporary(true)),
            (Ok(true), None) => Ok(held.renewal()),
        });
    }
    answers
}

/// Returns the sessions of these leases, each once.
fn sessions(due: &[(&EtcdGrant, Duration)]) -> BTreeMap<i64, Arc<Session>> {
    due.iter().flat_map(|(held, _)| held.sessions()).map(|session| (session.id, session)).collect()
}

/// Keeps these sessions alive, except those that were kept alive just now. Returns an error if one had no answer.
async fn keep_alive(sessions: BTreeMap<i64, Arc<Session>>, limits: Limits) -> Result<()> {
    let mut all = JoinSet::new();
    for session in sessions.into_values() {
        let not_before = Instant::now().minus(shared_keep_alive(session.ttl));
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

/// Returns for each lease whether its key exists. Few keys are read one by one. Many are found in the server's list of
/// each lease's keys.
async fn keys_present(etcd: &Etcd, due: &[(&EtcdGrant, Duration)], limits: Limits) -> Vec<Result<bool>> {
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
    // A list may lag behind: keys that are not in it are read.
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

impl Grant for EtcdGrant {
    fn fences(&self) -> Option<Range<u64>> {
        let fence = u64::try_from(self.rev).ok()?;
        Some(fence..fence + 1)
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.send_release())
    }
}

/// Continues an unconfirmed release in the background: the lease may live on for other claims.
impl Drop for EtcdGrant {
    fn drop(&mut self) {
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        if !sessions.is_empty() {
            self.take_back(&sessions, Unanswered::new());
        }
    }
}

impl std::fmt::Debug for EtcdGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdGrant").field("claim", &self.claim.nonce).field("rev", &self.rev).finish_non_exhaustive()
    }
}
