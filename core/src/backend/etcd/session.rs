//! The leases at the server: one for all claims of a ttl class, kept alive once for all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use etcd_client::{Error as Etcd, LeaseGrantOptions};
use tokio::task::JoinSet;

use super::error::{Failure, Fate};
use super::link::{Limits, Link, PATIENCE, Refusal};
use crate::clock::{self, Instant};
use crate::error::Error;
use crate::runtime::{self, lock};

/// How many classes of ttl a client has. What comes later joins the next longer one.
const CLASSES: usize = 8;

/// How many bytes of keys a lease carries, so that the server can list them in one answer of 4 MiB: also where long keys
/// came first and many short ones later.
const LISTED: usize = 512 << 10;

/// One lease at the server. Dropped, it is revoked in the background.
pub(super) struct Session {
    link: Arc<Link>,
    pub(super) id: i64,
    /// What the server granted: whole seconds, and no less than its own minimum.
    pub(super) ttl: Duration,
    /// Of one claim only.
    pub(super) own: bool,
    since: AtomicU64,
    over: AtomicBool,
    /// One keep-alive at a time: whoever comes meanwhile is served by it.
    refreshing: tokio::sync::Mutex<()>,
    epoch: u32,
}

/// The sessions of a client.
pub(super) struct Sessions {
    link: Arc<Link>,
    classes: Mutex<BTreeMap<u64, Arc<Class>>>,
    /// All that may live.
    all: Mutex<Vec<Weak<Session>>>,
}

#[derive(Default)]
struct Class {
    /// Those that have room for more keys, and those that may have again.
    sessions: Mutex<Vec<Arc<Session>>>,
    granting: tokio::sync::Mutex<()>,
}

/// How many whole seconds a ttl is, rounded up.
pub(super) fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

impl Sessions {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, classes: Mutex::default(), all: Mutex::default() }
    }

    /// The session for a claim of this ttl, with at least half of it left, and room for a key of so many bytes; `own`: one
    /// that no other claim has.
    pub(super) async fn pick(
        &self,
        ttl: Duration,
        own: bool,
        size: usize,
        limits: Limits,
    ) -> Result<Arc<Session>, Refusal> {
        let wanted = seconds(ttl);
        let Some(class) = (if own { None } else { self.class(wanted) }) else {
            return Box::pin(self.grant(wanted, true, limits)).await;
        };
        let (seconds, class) = class;
        loop {
            while let Some(session) = class.usable(size) {
                if session.since().plus(session.ttl / 2).left() > Duration::ZERO {
                    if session.since().plus(session.ttl / 3).passed() {
                        session.refresh_later();
                    }
                    return Ok(session);
                }
                if Box::pin(session.keep_alive(limits, Instant::now().minus(session.ttl / 3))).await? {
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

    async fn grant(&self, seconds: u64, own: bool, limits: Limits) -> Result<Arc<Session>, Refusal> {
        let session = Arc::new(Session::grant(&self.link, seconds, own, limits).await?);
        let mut all = lock(&self.all);
        if all.len() == all.capacity() {
            all.retain(|session| session.strong_count() > 0);
        }
        all.push(Arc::downgrade(&session));
        Ok(session)
    }

    /// Ends them all, with whatever still has them.
    pub(super) async fn close(&self) {
        let all: Vec<_> = lock(&self.all).drain(..).filter_map(|session| session.upgrade()).collect();
        let mut ends = JoinSet::new();
        for session in all.into_iter().filter(|session| !session.is_over()) {
            let limits = self.link.limits(PATIENCE);
            // If it isn't done, it ends by its ttl.
            ends.spawn(async move { drop(session.revoke(limits).await) });
        }
        while ends.join_next().await.is_some() {}
    }

    /// The class for a ttl, and its seconds. `None`: there are too many, and none is longer.
    fn class(&self, wanted: u64) -> Option<(u64, Arc<Class>)> {
        let mut classes = lock(&self.classes);
        if classes.len() < CLASSES || classes.contains_key(&wanted) {
            return Some((wanted, classes.entry(wanted).or_default().clone()));
        }
        classes.range(wanted..).next().map(|(seconds, class)| (*seconds, class.clone()))
    }

    /// Gives it to no further claim. It ends with those that have it.
    pub(super) fn retire(&self, session: &Arc<Session>) {
        for class in lock(&self.classes).values() {
            lock(&class.sessions).retain(|other| !Arc::ptr_eq(other, session));
        }
    }
}

impl Class {
    /// The first with room for a key of so many bytes.
    fn usable(&self, size: usize) -> Option<Arc<Session>> {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| !session.is_over());
        let most = if mutant!("etcd-one-lease-for-all") { usize::MAX } else { LISTED / size.max(1) };
        // Each claim has it once, and so has this list.
        sessions.iter().find(|session| Arc::strong_count(session) <= most.max(1)).cloned()
    }
}

/// Waits within the limits for what somebody else may be doing.
async fn bounded<T>(limits: Limits, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        done = work => done,
        () = clock::sleep(limits.budget) => {
            let failure = Failure::refused(Error::unavailable("etcd gave no lease in time"));
            Err(Refusal { failure, unanswered: Vec::new() })
        }
    }
}

impl Session {
    async fn grant(link: &Arc<Link>, seconds: u64, own: bool, limits: Limits) -> Result<Self, Refusal> {
        let ttl = i64::try_from(seconds).unwrap_or(i64::MAX);
        // Ours to choose, one for each sending, so that what is granted to nobody's knowledge can be taken back.
        let ids = Mutex::new(Vec::new());
        let answer = link.ask(limits, |conn| {
            let id = i64::try_from(getrandom::u64().unwrap_or(0) >> 1).unwrap_or(0).max(1);
            lock(&ids).push(id);
            async move { conn.client.lease_client().grant(ttl, Some(LeaseGrantOptions::new().with_id(id))).await }
        });
        let answer = answer.await;
        let id = answer.as_ref().map_or(0, |answer| answer.value.id());
        let known = answer.as_ref().err().is_some_and(|refusal| !refusal.is_unknown());
        for other in std::mem::take(&mut *lock(&ids)).into_iter().filter(|other| *other != id && !known) {
            revoke_later(link.clone(), other);
        }
        let answer = answer?;
        Ok(Self {
            link: link.clone(),
            id,
            ttl: Duration::from_secs(u64::try_from(answer.value.ttl()).unwrap_or(0)),
            own,
            since: AtomicU64::new(answer.sent.nanos()),
            over: AtomicBool::new(false),
            refreshing: tokio::sync::Mutex::default(),
            epoch: runtime::epoch(),
        })
    }

    /// When the last request was sent that the server has answered by a grant or by a ttl.
    pub(super) fn since(&self) -> Instant {
        Instant::from_nanos(self.since.load(Ordering::Acquire))
    }

    /// The server has said that there is no such lease.
    pub(super) fn lose(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.since().plus(self.ttl).passed()
    }

    /// Keeps it alive, unless that was done by a request sent no earlier than this. False: it has ended.
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
                    // An answer without a ttl, which the crate tells in this way.
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
                Err(refusal) if refusal.failure.fate == Fate::NoLease => {
                    self.lose();
                    Ok(false)
                }
                Err(refusal) => Err(refusal),
            }
        };
        bounded(limits, kept).await
    }

    fn refresh_later(self: &Arc<Self>) {
        let (session, limits) = (self.clone(), self.link.limits(PATIENCE));
        runtime::spawn(async move {
            let _ = session.keep_alive(limits, Instant::now().minus(session.ttl / 3)).await;
        });
    }

    /// Ends it: whatever was put with it is deleted, and can't be put later.
    pub(super) async fn revoke(&self, limits: Limits) -> Result<(), Error> {
        revoke(&self.link, self.id, limits).await?;
        self.lose();
        Ok(())
    }
}

async fn revoke(link: &Arc<Link>, id: i64, limits: Limits) -> Result<(), Error> {
    match link.ask(limits, |conn| async move { conn.client.lease_client().revoke(id).await }).await {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.failure.fate == Fate::NoLease => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

fn revoke_later(link: Arc<Link>, id: i64) {
    runtime::spawn_tracked(async move {
        // If it isn't done, the lease ends by its ttl.
        let _ = revoke(&link, id, link.limits(PATIENCE)).await;
    });
}

/// Does nothing in a child of fork: the lease is the parent's.
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
        f.debug_set().entries(lock(&self.classes).keys()).finish()
    }
}
