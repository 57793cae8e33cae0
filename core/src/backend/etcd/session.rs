//! Sessions: the leases at the server. One session serves all claims of a ttl class, and one keep-alive renews it for
//! all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use etcd_client::{Error as Etcd, LeaseGrantOptions};
use tokio::task::JoinSet;

use super::connection::Link;
use super::request::Refusal;
use crate::clock::Instant;
use crate::error::Error;
use crate::net::failure::Outcome;
use crate::net::request::{Limits, answer_within};
use crate::net::ttl_classes::{TtlClasses, seconds};
use crate::runtime::{self, lock};
use crate::timing::{self, PATIENCE};

/// The number of bytes of keys that a lease carries, so that the server can list them in one answer of 4 MiB: also if
/// long keys came first and many short ones later.
const LISTED: usize = 512 << 10;

/// A lease at the server. It is revoked in the background when the session is dropped.
pub(super) struct Session {
    link: Arc<Link>,
    pub(super) id: i64,
    /// The ttl that the server granted: whole seconds, and no less than its own minimum.
    pub(super) ttl: Duration,
    /// True if one claim has the session for itself.
    pub(super) dedicated: bool,
    since: AtomicU64,
    over: AtomicBool,
    /// The lock for one keep-alive at a time, which serves every caller that waits for it.
    refreshing: tokio::sync::Mutex<()>,
    epoch: u32,
}

/// The sessions of a client.
pub(super) struct Sessions {
    link: Arc<Link>,
    classes: TtlClasses<Class>,
    /// All sessions that may live.
    all: Mutex<Vec<Weak<Session>>>,
}

/// The sessions of one ttl.
#[derive(Default)]
struct Class {
    /// The sessions that have room for more keys, or may have room again.
    sessions: Mutex<Vec<Arc<Session>>>,
    granting: tokio::sync::Mutex<()>,
}

impl Sessions {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, classes: TtlClasses::default(), all: Mutex::default() }
    }

    /// Returns the session for a claim of this ttl, with at least half of it left, and room for a key of `size` bytes.
    /// `dedicated`: a session that no other claim has.
    pub(super) async fn pick(
        &self,
        ttl: Duration,
        dedicated: bool,
        size: usize,
        limits: Limits,
    ) -> Result<Arc<Session>, Refusal> {
        let wanted = seconds(ttl);
        let Some(class) = (if dedicated { None } else { self.classes.get(wanted) }) else {
            return Box::pin(self.grant(wanted, true, limits)).await;
        };
        let (seconds, class) = class;
        loop {
            while let Some(session) = class.usable(size) {
                if !session.is_older_than(timing::session_limit(session.ttl)) {
                    if session.is_older_than(timing::session_refresh(session.ttl)) {
                        session.refresh_later();
                    }
                    return Ok(session);
                }
                if Box::pin(session.keep_alive(limits, Instant::now().minus(timing::session_refresh(session.ttl))))
                    .await?
                {
                    return Ok(session);
                }
            }
            let grant = async {
                let _one = class.granting.lock().await;
                if class.usable(size).is_some() {
                    return Ok(None);
                }
                let session = self.grant(seconds, false, limits).await?;
                lock(&class.sessions).push(session.clone());
                Ok(Some(session))
            };
            if let Some(session) = Box::pin(bounded(limits, grant)).await? {
                return Ok(session);
            }
        }
    }

    /// Creates a session.
    async fn grant(&self, seconds: u64, dedicated: bool, limits: Limits) -> Result<Arc<Session>, Refusal> {
        let session = Arc::new(Session::grant(&self.link, seconds, dedicated, limits).await?);
        let mut all = lock(&self.all);
        if all.len() == all.capacity() {
            all.retain(|session| session.strong_count() > 0);
        }
        all.push(Arc::downgrade(&session));
        Ok(session)
    }

    /// Revokes all sessions and deletes all their keys.
    pub(super) async fn close(&self) {
        let all: Vec<_> = lock(&self.all).drain(..).filter_map(|session| session.upgrade()).collect();
        let mut ends = JoinSet::new();
        for session in all.into_iter().filter(|session| !session.is_over()) {
            let limits = self.link.limits(PATIENCE);
            // Without an answer the lease ends by its ttl.
            ends.spawn(async move { drop(session.revoke(limits).await) });
        }
        while ends.join_next().await.is_some() {}
    }

    /// Gives a session to no further claim. It ends with the claims that have it.
    pub(super) fn retire(&self, session: &Arc<Session>) {
        for class in self.classes.all() {
            lock(&class.sessions).retain(|other| !Arc::ptr_eq(other, session));
        }
    }
}

impl Class {
    /// Returns the first session with room for a key of `size` bytes.
    fn usable(&self, size: usize) -> Option<Arc<Session>> {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| !session.is_over());
        let most = if mutant!("etcd-one-lease-for-all") { usize::MAX } else { LISTED / size.max(1) };
        // Each claim has one reference to its session, and so has this list.
        sessions.iter().find(|session| Arc::strong_count(session) <= most.max(1)).cloned()
    }
}

/// Waits within the limits for work that another task may be doing.
async fn bounded<T>(limits: Limits, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let done = answer_within(limits.budget, work).await;
    done.unwrap_or_else(|| Err(Refusal::not_applied(Error::unavailable("etcd gave no lease in time"))))
}

impl Session {
    /// Creates a lease at the server.
    async fn grant(link: &Arc<Link>, seconds: u64, dedicated: bool, limits: Limits) -> Result<Self, Refusal> {
        let ttl = i64::try_from(seconds).unwrap_or(i64::MAX);
        // Each sending has an id of its own, so that a lease whose grant had no answer can be revoked.
        let ids = Mutex::new(Vec::new());
        let answer = link.ask(limits, |conn| {
            let id = i64::try_from(getrandom::u64().unwrap_or(0) >> 1).unwrap_or(0).max(1);
            lock(&ids).push(id);
            async move { conn.client.lease_client().grant(ttl, Some(LeaseGrantOptions::new().with_id(id))).await }
        });
        let answer = answer.await;
        let id = answer.as_ref().map_or(0, |answer| answer.value.id());
        let known = answer.as_ref().err().is_some_and(|refusal| !refusal.is_in_doubt());
        for other in std::mem::take(&mut *lock(&ids)).into_iter().filter(|other| *other != id && !known) {
            revoke_later(link.clone(), other);
        }
        let answer = answer?;
        Ok(Self {
            link: link.clone(),
            id,
            ttl: Duration::from_secs(u64::try_from(answer.value.ttl()).unwrap_or(0)),
            dedicated,
            since: AtomicU64::new(answer.sent.nanos()),
            over: AtomicBool::new(false),
            refreshing: tokio::sync::Mutex::default(),
            epoch: runtime::epoch(),
        })
    }

    /// Returns the time when the last request was sent that the server has answered with a grant or a ttl.
    pub(super) fn since(&self) -> Instant {
        Instant::from_nanos(self.since.load(Ordering::Acquire))
    }

    /// Returns true if that time is longer ago than this.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.since().plus(age).passed()
    }

    /// Notes the server's answer that there is no such lease.
    pub(super) fn lose(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Returns true if the lease has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.since().plus(self.ttl).passed()
    }

    /// Keeps the lease alive, unless a request that was sent at `not_before` or later has done that. Returns false if
    /// it has ended.
    pub(super) async fn keep_alive(&self, limits: Limits, not_before: Instant) -> Result<bool, Refusal> {
        let kept = async {
            let _one = self.refreshing.lock().await;
            if self.over.load(Ordering::Acquire) {
                return Ok(false);
            }
            if self.since() >= not_before {
                return Ok(true);
            }
            let id = self.id;
            let answer = self.link.ask(limits, |conn| async move {
                match conn.client.lease_client().keep_alive(id).await {
                    Ok(_) => Ok(true),
                    // The crate's error for an answer without a ttl.
                    Err(Etcd::LeaseKeepAliveError(_)) => Ok(mutant!("etcd-ended-lease-kept")),
                    Err(error) => Err(error),
                }
            });
            match answer.await {
                Ok(answer) if answer.value => {
                    self.since.fetch_max(answer.sent.nanos(), Ordering::AcqRel);
                    Ok(true)
                }
                Ok(_) => {
                    self.lose();
                    Ok(false)
                }
                Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => {
                    self.lose();
                    Ok(false)
                }
                Err(refusal) => Err(refusal),
            }
        };
        bounded(limits, kept).await
    }

    /// Keeps the lease alive in the background.
    fn refresh_later(self: &Arc<Self>) {
        let (session, limits) = (self.clone(), self.link.limits(PATIENCE));
        runtime::spawn(async move {
            let _ = session.keep_alive(limits, Instant::now().minus(timing::session_refresh(session.ttl))).await;
        });
    }

    /// Ends the lease: its keys are deleted, and none can be put later.
    pub(super) async fn revoke(&self, limits: Limits) -> Result<(), Error> {
        revoke(&self.link, self.id, limits).await?;
        self.lose();
        Ok(())
    }
}

/// Revokes a lease.
async fn revoke(link: &Arc<Link>, id: i64, limits: Limits) -> Result<(), Error> {
    match link.ask(limits, |conn| async move { conn.client.lease_client().revoke(id).await }).await {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Revokes a lease in the background.
fn revoke_later(link: Arc<Link>, id: i64) {
    runtime::spawn_tracked(async move {
        // Without an answer the lease ends by its ttl.
        let _ = revoke(&link, id, link.limits(PATIENCE)).await;
    });
}

/// Revokes the lease, but not in a child of fork: the lease is the parent's.
impl Drop for Session {
    fn drop(&mut self) {
        if self.epoch == runtime::epoch() && !self.is_over() {
            revoke_later(self.link.clone(), self.id);
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:x}, {:?})", self.id, self.ttl)
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.classes.fmt(f)
    }
}
