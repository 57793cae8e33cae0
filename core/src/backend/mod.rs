//! What a backend has to provide, and the table of those there are.
//!
//! A backend knows how to try once, say when to try again, renew and release. Deadlines, cancelling, retries, renewal
//! and local queues are written once, above it.

use std::any::Any;
use std::fmt::Debug;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::claim::Claim;
use crate::client::Core;
use crate::clock::Instant;
use crate::config::{Config, Opt, Scheme, Values};
use crate::error::{Error, Kind, Result};

#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(all(feature = "file", unix))]
pub mod file;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

/// A boxed future: one allocation a round trip buys one object-safe trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Every backend of this build. A new one adds its module above and its line here.
pub static DRIVERS: &[&Driver] = &[
    #[cfg(feature = "memory")]
    &memory::DRIVER,
    #[cfg(all(feature = "file", unix))]
    &file::DRIVER,
    #[cfg(feature = "redis")]
    &redis::DRIVER,
    #[cfg(feature = "etcd")]
    &etcd::DRIVER,
];

/// The services that configuration may speak of, whether this build has them or not: what was meant for one that it
/// doesn't have is refused, or else it would lock on files of this host.
pub(crate) const SERVICES: &[&str] = &["redis", "etcd", "mysql", "zookeeper"];

/// How a backend is named, configured and reached.
#[derive(Debug)]
pub struct Driver {
    /// The service's name: `client.backend`, the YAML block, the middle of `DLOCK_<NAME>_…`.
    pub name: &'static str,
    /// The URL schemes it answers to; the first is the one that typed configuration writes.
    pub schemes: &'static [Scheme],
    /// Its options beyond the common ones.
    pub options: &'static [Opt],
    /// Whether it is one of the services that configuration switches on by `enabled`.
    pub service: bool,
    /// Turns the parts of a URL (hosts, user, path) into options.
    pub parts: fn(&crate::config::Parts, &mut Values) -> Result<()>,
    /// Turns options back into what stands between scheme and parameters of a URL, without secrets.
    pub authority: fn(&Values) -> String,
    /// What it can do and promises where nothing else is configured.
    pub capability: fn() -> Capability,
    /// Makes the backend. No I/O: that begins with the first request.
    pub connect: fn(&Config, Alarm) -> Result<Arc<dyn Backend>>,
}

/// What a backend can do and promises; the documented answer to "can this one …".
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Capability {
    /// Every grant carries a greater number.
    pub fence: bool,
    /// The backend itself ends the lock of a dead or frozen holder after the ttl.
    pub ttl: bool,
    /// First come, first served across processes.
    pub fifo: bool,
    /// Shared claims.
    pub shared: bool,
    /// One-of-N permits.
    pub permits: bool,
    /// Takes part in local hand-off.
    pub handoff: bool,
    /// Processes of one host exclude one another.
    pub processes: bool,
    /// A child of fork can use it after its parent did.
    pub fork: bool,
    /// Answers on the caller's thread, and its lease lives as long as this process keeps it.
    pub local: bool,
    /// The smallest ttl it can keep.
    pub min_ttl: Duration,
    /// What exclusion rests on, in one sentence for the guarantee table.
    pub guarantee: &'static str,
}

/// One backend, connected (or about to be) for one client.
pub trait Backend: Send + Sync + Debug + 'static {
    /// What it can do and promises.
    fn capability(&self) -> Capability;

    /// The name under which the backend knows a key. Verbatim where that is safe.
    ///
    /// # Errors
    /// `Invalid` for a key that this backend can't carry.
    fn encode(&self, key: &str) -> Result<String>;

    /// The uncontended acquire of a local backend, on the caller's thread. `None`: not a local backend.
    fn try_now(&self, claim: &Claim) -> Option<Result<Attempt>> {
        let _ = claim;
        None
    }

    /// Whether its leases have to be renewed, or looked after, to stay ours.
    fn renews(&self) -> bool {
        true
    }

    /// A new contender. No I/O.
    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender>;

    /// How many leases one renewal takes at the most.
    fn batch(&self) -> usize {
        500
    }

    /// Renews (or, where a session or descriptor is the lease, validates) everything that is due, in as few requests
    /// as the backend allows. One answer for each entry, in the same order; "don't know" is a temporary error.
    fn renew<'a>(&'a self, due: &'a [Due]) -> BoxFuture<'a, Vec<Result<Renewal>>>;

    /// Who holds and who waits for a name, holder first.
    fn holders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Holder>>>;

    /// Takes the lock away from whoever holds it. False: nobody did. A holder of this process is told by the core.
    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Checks that the backend answers.
    fn ping(&self) -> BoxFuture<'_, Result<()>>;

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
        /// When the request was *sent* from which the backend's own countdown is known to run. Only the backend knows
        /// it: for a grant from a queue it is the refresh that the server had executed before the grant.
        since: Instant,
        /// What was granted, which may be other than asked.
        ttl: Duration,
    },
    /// Somebody else's; what to wait for before the next try.
    Busy(Wake),
}

/// When to try again.
pub struct Wake {
    /// At the latest after this: the core's safety net, jitter included by the backend where it wants some.
    pub after: Duration,
    /// Sooner, when this resolves. It contains no timer of its own.
    pub on: Option<BoxFuture<'static, ()>>,
}

/// One grant, as the backend sees it. `Any`, so that the backend finds its own type again when it renews.
pub trait Grant: Any + Send + Sync + Debug {
    /// The fencing tokens that came with it: one, or a block where local hand-off was asked for. Each fits an `i64`.
    fn fences(&self) -> Option<Range<u64>>;

    /// Gives the lock back, if it is still ours. Idempotent: repeated until it is answered.
    fn release(&self) -> BoxFuture<'_, Result<Renewal>>;

    /// The release of a local backend, on the caller's thread. `None`: not a local backend.
    fn release_now(&self) -> Option<Renewal> {
        None
    }
}

/// The backend's own type of grant.
///
/// # Errors
/// `Internal` for a grant of another backend.
pub(crate) fn own<G: Grant>(grant: &Arc<dyn Grant>) -> Result<&G> {
    let any: &dyn Any = &**grant;
    any.downcast_ref().ok_or_else(|| Error::new(Kind::Internal, "a grant of another backend"))
}

/// One lease that is due for renewal.
pub struct Due {
    /// What to renew.
    pub grant: Arc<dyn Grant>,
    /// For how long.
    pub ttl: Duration,
}

/// What a renewal, or a release, found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Ours until `since + ttl`.
    Kept {
        /// When the request was sent.
        since: Instant,
        /// What was granted.
        ttl: Duration,
    },
    /// No longer ours.
    Lost,
}

/// Somebody who holds or waits. What the backend can't tell is `None`, never guessed.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holder {
    /// Whether this one holds the lock; else it waits.
    pub held: bool,
    /// The owner's token.
    pub token: Option<String>,
    /// The owner's free text.
    pub label: Option<String>,
    /// The owner's host.
    pub host: Option<String>,
    /// The owner's process.
    pub pid: Option<u32>,
    /// The fencing token.
    pub fence: Option<u64>,
    /// How long it has held, or waited.
    pub age: Option<Duration>,
    /// How long the backend still keeps the lock with no renewal.
    pub ttl: Option<Duration>,
}

/// By which a backend tells its client that a lock may have been taken away, so that it is looked at now and not at
/// the next renewal.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    core: Arc<OnceLock<Weak<Core>>>,
    client: u32,
}

impl Alarm {
    pub(crate) fn new(client: u32) -> Self {
        Self { core: Arc::default(), client }
    }

    pub(crate) fn belongs_to(&self, core: &Arc<Core>) {
        // Set once, by the one core it was made for.
        let _ = self.core.set(Arc::downgrade(core));
    }

    /// What the client is called in a backend's queue; the claims' ids begin with it.
    pub fn contender(&self) -> String {
        crate::claim::contender(self.client)
    }

    /// Has the lease held under this encoded name, if there is one, renewed at once.
    pub fn raise(&self, name: &str) {
        if let Some(core) = self.core.get().and_then(Weak::upgrade) {
            core.suspect(name);
        }
    }
}
