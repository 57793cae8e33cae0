//! Since when nobody of a client has had an answer from its backend. An outage is one fact for all who wait, at the
//! backend or in the local queue, so all of them are told of it at once.
//!
//! Silence alone is no outage: it begins with a request that failed, and any answer to anybody ends it. While somebody
//! waits and no contender asks, the backend is asked whether it is there.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::error::Error;
use crate::runtime::lock;

/// The knowledge of one client's calls about its backend.
#[derive(Debug)]
pub(crate) struct Outage {
    /// The time of its last answer; `START`: it never has.
    answered: AtomicU64,
    /// The time at which the first request was sent that has failed since then; `NEVER`: there is none.
    since: AtomicU64,
    /// The error of the latest of those.
    why: Mutex<Option<Error>>,
    pub(super) changed: Notify,
    /// Calls that are to be told.
    pub(super) waiting: AtomicUsize,
    /// Contenders that have failed and ask again: what they hear counts for more than a ping.
    pub(super) asking: AtomicUsize,
    pub(super) probing: AtomicBool,
}

/// Counts somebody for as long as this lives.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self {
            answered: AtomicU64::new(Instant::START.nanos()),
            since: AtomicU64::new(Instant::NEVER.nanos()),
            why: Mutex::new(None),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
            probing: AtomicBool::new(false),
        }
    }

    /// Returns true if the backend has ever answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire) != Instant::START.nanos()
    }

    /// For a contender that has failed and goes on asking.
    pub(crate) fn asking(&self) -> Counted<'_> {
        Counted::new(&self.asking)
    }

    /// Returns when a call that began then is to be told of the outage; `NEVER`: there is none.
    pub(crate) fn end(&self, begun: Instant, limit: Duration) -> Instant {
        let since = Instant::from_nanos(self.since.load(Ordering::SeqCst));
        // A request that failed meanwhile may have begun it before the latest answer.
        since.max(begun).max(Instant::from_nanos(self.answered.load(Ordering::Acquire))).plus(limit)
    }

    fn is_on(&self) -> bool {
        self.since.load(Ordering::SeqCst) != Instant::NEVER.nanos()
    }

    pub(super) fn is_waited_in(&self) -> bool {
        self.is_on() && self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(super) fn answered(&self) {
        self.answered.store(Instant::now().nanos(), Ordering::Release);
        if self.is_on() {
            self.since.store(Instant::NEVER.nanos(), Ordering::SeqCst);
            self.changed.notify_waiters();
        }
    }

    pub(super) fn failed(&self, asked: Instant, error: &Error) {
        *lock(&self.why) = Some(error.clone());
        let since = asked.nanos().max(self.answered.load(Ordering::Acquire));
        let never = Instant::NEVER.nanos();
        if self.since.compare_exchange(never, since, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn why(&self) -> Error {
        let unknown = || Error::unavailable("the backend gave no answer in time; try again");
        lock(&self.why).clone().unwrap_or_else(unknown)
    }
}
