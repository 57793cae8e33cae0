//! Since when nobody of a client has had an answer from its backend. An outage is one fact for all who wait, at the backend
//! or in the local queue, so all of them are told of it at once.
//!
//! Silence alone is no outage: it begins with a request that failed, and any answer to anybody ends it. While somebody
//! waits and no contender asks, the backend is asked whether it is there.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::client::Core;
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::runtime::{self, locked};

/// What the calls of one client know of its backend.
#[derive(Debug)]
pub(crate) struct Outage {
    /// When it answered last; `START`: it never has.
    answered: AtomicU64,
    /// When the first request was sent that has failed since then; `NEVER`: there is none.
    since: AtomicU64,
    /// What the latest of those failed with.
    why: Mutex<Option<Error>>,
    changed: Notify,
    /// Calls that are to be told.
    waiting: AtomicUsize,
    /// Contenders that have failed and ask again: what they hear counts for more than a ping.
    asking: AtomicUsize,
    probing: AtomicBool,
}

/// Counts somebody for as long as this lives.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
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

    /// Whether the backend has ever answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire) != Instant::START.nanos()
    }

    /// For a contender that has failed and goes on asking.
    pub(crate) fn asking(&self) -> Counted<'_> {
        Counted::new(&self.asking)
    }

    /// When a call that began then is to be told of the outage; `NEVER`: there is none.
    pub(crate) fn end(&self, begun: Instant, limit: Duration) -> Instant {
        let since = Instant::from_nanos(self.since.load(Ordering::SeqCst));
        // A request that failed meanwhile may have begun it before the latest answer.
        since.max(begun).max(Instant::from_nanos(self.answered.load(Ordering::Acquire))).plus(limit)
    }

    fn is_on(&self) -> bool {
        self.since.load(Ordering::SeqCst) != Instant::NEVER.nanos()
    }

    fn is_waited_in(&self) -> bool {
        self.is_on() && self.waiting.load(Ordering::SeqCst) > 0
    }

    fn answered(&self) {
        self.answered.store(Instant::now().nanos(), Ordering::Release);
        if self.is_on() {
            self.since.store(Instant::NEVER.nanos(), Ordering::SeqCst);
            self.changed.notify_waiters();
        }
    }

    fn failed(&self, asked: Instant, error: &Error) {
        *locked(&self.why) = Some(error.clone());
        let since = asked.nanos().max(self.answered.load(Ordering::Acquire));
        let never = Instant::NEVER.nanos();
        if self.since.compare_exchange(never, since, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.changed.notify_waiters();
        }
    }

    fn why(&self) -> Error {
        let unknown = || Error::unavailable("the backend gave no answer in time; try again");
        locked(&self.why).clone().unwrap_or_else(unknown)
    }
}

impl Core {
    /// Takes note of what came of a request that was sent then.
    pub(crate) fn heard<T>(self: &Arc<Self>, asked: Instant, answer: &Result<T>) {
        match answer {
            Err(error) if error.is_temporary() => self.unheard(asked, error),
            _ => self.outage.answered(),
        }
    }

    /// Takes note that a request that was sent then has had no answer.
    pub(crate) fn unheard(self: &Arc<Self>, asked: Instant, error: &Error) {
        self.outage.failed(asked, error);
        self.probe();
    }

    /// Resolves when the backend has answered nobody for the time that a call which began then has to stand.
    pub(crate) async fn outage(self: &Arc<Self>, begun: Instant) -> Error {
        let _waiting = Counted::new(&self.outage.waiting);
        self.probe();
        loop {
            let mut changed = std::pin::pin!(self.outage.changed.notified());
            changed.as_mut().enable();
            let end = self.outage.end(begun, self.config.connect_timeout());
            if end.passed() {
                return self.outage.why();
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = clock::sleep_until(end) => {}
            }
        }
    }

    /// Has the backend asked whether it is there, as long as there are no answers and somebody waits for one.
    fn probe(self: &Arc<Self>) {
        if self.outage.is_waited_in() && !self.outage.probing.swap(true, Ordering::SeqCst) {
            runtime::spawn(probe(Arc::downgrade(self)));
        }
    }
}

async fn probe(core: Weak<Core>) {
    let mut pause = Duration::from_millis(10);
    loop {
        clock::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
        let Some(core) = core.upgrade() else { return };
        if !core.outage.is_waited_in() {
            core.outage.probing.store(false, Ordering::SeqCst);
            // Somebody may have come between the two.
            return core.probe();
        }
        if core.outage.asking.load(Ordering::SeqCst) > 0 {
            continue;
        }
        let (asked, limit) = (Instant::now(), core.config.connect_timeout());
        let answer = tokio::time::timeout(limit, core.backend.ping()).await;
        core.heard(asked, &answer.unwrap_or_else(|_| Err(Error::unavailable("the backend gave no answer in time"))));
    }
}
