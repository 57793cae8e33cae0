//! The traits that a backend implements, and what they answer with.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::contender_info::ContenderInfo;
use crate::clock::Instant;
use crate::error::{Error, Kind, Result};
use crate::runtime::BoxFuture;

/// One backend, connected (or about to be) for one client.
pub trait Backend: Send + Sync + Debug + 'static {
    /// The name under which the backend knows a key. Verbatim where that is safe.
    ///
    /// # Errors
    /// `Invalid` for a key that this backend can't carry.
    fn name_of(&self, key: &str) -> Result<String>;

    /// The uncontended acquire of a local backend, on the caller's thread. `None`: not a local backend.
    fn try_now(&self, claim: &Claim) -> Option<Result<Attempt>> {
        let _ = claim;
        None
    }

    /// Returns true if its leases have to be renewed, or looked after, to stay ours.
    fn renews(&self) -> bool {
        true
    }

    /// A new contender. No I/O.
    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender>;

    /// Returns the most leases that one renewal takes.
    fn renew_limit(&self) -> usize {
        500
    }

    /// Renews (or, where a session or descriptor is the lease, validates) everything that is due, in as few requests
    /// as the backend allows. One answer for each entry, in the same order; "don't know" is a temporary error.
    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>>;

    /// Returns the holders of a name, and then the waiters.
    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>>;

    /// Takes the lock away from whoever holds it. False: nobody did. A holder of this process is told by the core.
    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Checks that the backend answers.
    fn ping(&self) -> BoxFuture<'_, Result<()>>;

    /// Checks that the backend answers, and looks for what keeps its locks from what they promise. One text for each
    /// finding: the problem and the remedy.
    fn diagnose(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move { self.ping().await.map(|()| Vec::new()) })
    }

    /// Lists the keys of this prefix whose locks are held or waited for, each as [`name_of`](Self::name_of) was given
    /// it.
    ///
    /// # Errors
    /// `Unsupported` where the backend can't find them.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        let _ = prefix;
        let text = "this backend can't list its locks: ask for the contenders of each key";
        Box::pin(std::future::ready(Err(Error::new(Kind::Unsupported, text))))
    }

    /// At the end of the process, when nothing is held or waited for any more: ends what the service keeps for it.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// One contender, from its first try to a grant or its withdrawal.
pub trait Contender: Send {
    /// Tries once, within the budget. A time-out after the request left is *unknown*, never *failed*: the contender
    /// remembers it, and the next attempt or the withdrawal settles it.
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>>;

    /// Leaves the queue and undoes a grant nobody saw. Idempotent; an error means: not settled yet, call again.
    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>>;
}

/// The answer to one try.
pub enum Attempt {
    /// Ours.
    Granted {
        /// The proof, to renew and release with.
        grant: Arc<dyn Grant>,
        /// The time at which the request was *sent* from which the backend's own countdown is known to run. Only the
        /// backend knows it: for a grant from a queue it is the refresh that the server had executed before the grant.
        since: Instant,
        /// The ttl that was granted, which may be other than asked.
        ttl: Duration,
    },
    /// Somebody else's; what to wait for before the next try.
    Busy(RetryHint),
}

/// The time of the next try.
pub struct RetryHint {
    /// At the latest after this: the core's safety net, jitter included by the backend where it wants some.
    pub after: Duration,
    /// Sooner, when this resolves. It contains no timer of its own.
    pub on: Option<BoxFuture<'static, ()>>,
}

/// One grant, as the backend sees it. `Any`, so that the backend finds its own type again when it renews.
pub trait Grant: Any + Send + Sync + Debug {
    /// The fencing tokens that came with it: one, or a block where local hand-off was asked for. Each fits an `i64`.
    fn fences(&self) -> Option<Range<u64>>;

    /// The session of the backend's that keeps it, if one session keeps several grants.
    fn session(&self) -> Option<u64> {
        None
    }

    /// The slots of its permits; none for a lock of another mode.
    fn slots(&self) -> &[u32] {
        &[]
    }

    /// Gives the lock back, if it is still ours. Idempotent: repeated until it is answered.
    fn release(&self) -> BoxFuture<'_, Result<Released>>;

    /// The release of a local backend, on the caller's thread. `None`: not a local backend.
    fn release_now(&self) -> Option<Released> {
        None
    }
}

/// One lease that is due for renewal.
pub struct DueLease {
    /// The grant to renew.
    pub grant: Arc<dyn Grant>,
    /// For how long.
    pub ttl: Duration,
}

impl DueLease {
    /// Returns the grant as the backend's own type.
    ///
    /// # Errors
    /// `Internal` for a grant of another backend.
    pub(crate) fn downcast<G: Grant>(&self) -> Result<&G> {
        let any: &dyn Any = &*self.grant;
        any.downcast_ref().ok_or_else(|| Error::new(Kind::Internal, "a grant of another backend"))
    }

    /// Returns the grants as the backend's own type, with their ttls.
    ///
    /// # Errors
    /// `Internal` for a grant of another backend.
    pub(crate) fn downcast_all<G: Grant>(due: &[Self]) -> Result<Vec<(&G, Duration)>> {
        due.iter().map(|due| Ok((due.downcast()?, due.ttl))).collect()
    }
}

/// The answer to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was ours, and is free.
    Yes,
    /// It was no longer ours.
    NotOurs,
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Ours until `since + ttl`.
    Kept {
        /// The time at which the request was sent.
        since: Instant,
        /// The ttl that was granted.
        ttl: Duration,
    },
    /// No longer ours.
    Lost,
}
