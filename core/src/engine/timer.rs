//! The times at which the watchdog has to look at a name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::runtime::lock;

/// The time of the watchdog's next look, and what starts its loop.
pub(crate) struct Timer {
    next: AtomicU64,
    started: AtomicBool,
    start: OnceLock<Box<dyn Fn() + Send + Sync>>,
    changed: Notify,
    /// The number of leases the watchdog has looked at.
    #[cfg(feature = "testing")]
    pub(crate) seen: AtomicU64,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(Instant::NEVER.nanos()),
            started: AtomicBool::new(false),
            start: OnceLock::new(),
            changed: Notify::new(),
            #[cfg(feature = "testing")]
            seen: AtomicU64::new(0),
        }
    }

    /// Sets what starts the watchdog's loop. It is called once, with the first look that is asked for.
    pub(crate) fn on_start(&self, start: impl Fn() + Send + Sync + 'static) {
        let _ = self.start.set(Box::new(start));
    }

    /// Makes the watchdog look at this time at the latest.
    pub(crate) fn wake_by(&self, then: Instant) {
        if then >= self.next() {
            return;
        }
        self.next.fetch_min(then.nanos(), Ordering::AcqRel);
        if !self.started.swap(true, Ordering::AcqRel)
            && let Some(start) = self.start.get()
        {
            start();
        }
        self.changed.notify_one();
    }

    /// Wakes the loop, so that it finds that its client has ended.
    pub(crate) fn stop(&self) {
        self.changed.notify_one();
    }

    /// The time of the next look; `NEVER`: there is nothing to look at.
    pub(crate) fn next(&self) -> Instant {
        Instant::from_nanos(self.next.load(Ordering::Acquire))
    }

    /// Begins a look: whatever is scheduled from here on lowers the time of the next one again.
    pub(crate) fn begin(&self) {
        self.next.store(Instant::NEVER.nanos(), Ordering::Release);
    }

    /// Resolves when the time of the next look has changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer").field("next", &self.next()).finish_non_exhaustive()
    }
}

/// The names that have to be looked at, the earliest first. A name is queued once, for the lease that holds it then: a
/// lock that is acquired and released again and again finds its name there.
#[derive(Debug)]
pub(crate) struct Deadlines<T>(Mutex<BTreeMap<(u64, u64), Weak<T>>>);

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The place of a name among the deadlines.
#[derive(Debug)]
pub(crate) struct Deadline {
    number: u64,
    /// `NEVER`: it has none. Changed with the queue only.
    at: AtomicU64,
}

impl Deadline {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, at: AtomicU64::new(Instant::NEVER.nanos()) }
    }

    pub(crate) fn at(&self) -> Instant {
        Instant::from_nanos(self.at.load(Ordering::SeqCst))
    }
}

impl<T: AsRef<Deadline>> Deadlines<T> {
    /// Schedules a look at this name at this time at the latest.
    pub(crate) fn put(&self, name: &Arc<T>, then: Instant) {
        let (mut queue, deadline) = (lock(&self.0), T::as_ref(name));
        if deadline.at() <= then {
            return;
        }
        queue.remove(&(deadline.at().nanos(), deadline.number));
        queue.insert((then.nanos(), deadline.number), Arc::downgrade(name));
        deadline.at.store(then.nanos(), Ordering::SeqCst);
    }

    /// Takes out the first name that is due at this time.
    pub(crate) fn pop(&self, then: Instant) -> Option<Arc<T>> {
        let mut queue = lock(&self.0);
        while let Some(first) = queue.first_entry().filter(|first| first.key().0 <= then.nanos()) {
            // A name that is being dropped needs no look.
            if let Some(name) = first.remove().upgrade() {
                T::as_ref(&name).at.store(Instant::NEVER.nanos(), Ordering::SeqCst);
                return Some(name);
            }
        }
        None
    }

    /// The earliest time; `NEVER`: there is none.
    pub(crate) fn first(&self) -> Instant {
        lock(&self.0).first_key_value().map_or(Instant::NEVER, |((at, _), _)| Instant::from_nanos(*at))
    }

    /// Removes a name that nobody uses any more.
    pub(crate) fn remove(&self, deadline: &Deadline) {
        if deadline.at() != Instant::NEVER {
            lock(&self.0).remove(&(deadline.at().nanos(), deadline.number));
        }
    }
}
