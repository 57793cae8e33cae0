//! The only renewal loop: one task a client. It sleeps until the earliest moment at which a held lease needs something, and
//! looks at those that are due: what is not due costs nothing, however much that is.
//!
//! A name is queued once, for whoever holds it then: taking and giving back the same lock again and again finds it there.
//!
//! Correctness never depends on its punctuality: whether a lease counts is computed from the clock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use crate::claim::Terms;
use crate::client::Core;
use crate::clock::{self, Instant};
use crate::error::{Error, Result};
use crate::gate::Slot;
use crate::lease::Inner;
use crate::runtime::{self, locked};

/// After how many it lets others run.
const AT_ONCE: usize = 2_000;

#[derive(Debug)]
pub(crate) struct Watchdog {
    next: AtomicU64,
    started: AtomicBool,
    wake: Notify,
    /// How many leases it has looked at.
    #[cfg(feature = "testing")]
    pub(crate) seen: AtomicU64,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(Instant::NEVER.nanos()),
            started: AtomicBool::new(false),
            wake: Notify::new(),
            #[cfg(feature = "testing")]
            seen: AtomicU64::new(0),
        }
    }

    /// For when its client ends.
    pub(crate) fn stop(&self) {
        self.wake.notify_one();
    }

    fn next(&self) -> Instant {
        Instant::from_nanos(self.next.load(Ordering::Acquire))
    }
}

/// Which names have to be looked at, the earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(Mutex<BTreeMap<(u64, u64), Weak<Slot>>>);

/// Where a name stands among them.
#[derive(Debug)]
pub(crate) struct Due {
    number: u64,
    /// `NEVER`: nowhere. Changed with the queue only.
    at: AtomicU64,
}

impl Due {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, at: AtomicU64::new(Instant::NEVER.nanos()) }
    }

    fn at(&self) -> Instant {
        Instant::from_nanos(self.at.load(Ordering::SeqCst))
    }
}

impl Deadlines {
    /// Has it looked at by then.
    fn put(&self, slot: &Arc<Slot>, then: Instant) {
        let (mut queue, due) = (locked(&self.0), &slot.due);
        if due.at() <= then {
            return;
        }
        queue.remove(&(due.at().nanos(), due.number));
        queue.insert((then.nanos(), due.number), Arc::downgrade(slot));
        due.at.store(then.nanos(), Ordering::SeqCst);
    }

    /// Takes out the first of those that are due by then.
    fn pop(&self, then: Instant) -> Option<Arc<Slot>> {
        let mut queue = locked(&self.0);
        while let Some(first) = queue.first_entry().filter(|first| first.key().0 <= then.nanos()) {
            // One that is being dropped has nothing more to be looked at.
            if let Some(slot) = first.remove().upgrade() {
                slot.due.at.store(Instant::NEVER.nanos(), Ordering::SeqCst);
                return Some(slot);
            }
        }
        None
    }

    fn first(&self) -> Instant {
        locked(&self.0).first_key_value().map_or(Instant::NEVER, |((at, _), _)| Instant::from_nanos(*at))
    }

    /// For a name that nobody uses any more.
    pub(crate) fn remove(&self, due: &Due) {
        if due.at() != Instant::NEVER {
            locked(&self.0).remove(&(due.at().nanos(), due.number));
        }
    }
}

impl Core {
    /// Makes sure that a lease on these terms can be looked after, if it needs that.
    ///
    /// # Errors
    /// `Backend`, temporary, when the runtime can't be started.
    pub(crate) fn attended(&self, terms: &Terms) -> Result<()> {
        let ends = !self.endless(terms) || terms.max_hold.is_some();
        match (ends, self.capability.local) {
            // Nothing else of its acquire asks the runtime.
            (true, true) => runtime::started(),
            (false, _) if !(terms.renew && self.backend.renews()) => Ok(()),
            // Without a system call, which would cost a file's lock a quarter more.
            _ => runtime::handle().map(drop),
        }
    }

    /// Sees to it that the watchdog looks at this lease when it needs something.
    pub(crate) fn enroll(self: &Arc<Self>, lease: &Inner) {
        let next = lease.next();
        if next == Instant::NEVER {
            return;
        }
        // Either this sees that the name was taken out of the queue, or who took it out sees this lease.
        fence(Ordering::SeqCst);
        if lease.slot().due.at() > next {
            self.look_at(lease.slot(), next);
        }
    }

    /// Has the lease held under this name renewed at once.
    pub(crate) fn suspect(self: &Arc<Self>, name: &str) {
        let Some(slot) = self.gate.find(name) else { return };
        if let Some(lease) = slot.holder() {
            lease.suspect();
            self.look_at(&slot, Instant::START);
        }
    }

    fn look_at(self: &Arc<Self>, slot: &Arc<Slot>, then: Instant) {
        self.gate.deadlines.put(slot, then);
        self.look_by(then);
    }

    fn look_by(self: &Arc<Self>, then: Instant) {
        if then >= self.watchdog.next() {
            return;
        }
        self.watchdog.next.fetch_min(then.nanos(), Ordering::AcqRel);
        if !self.watchdog.started.swap(true, Ordering::AcqRel) {
            runtime::spawn(watch(Arc::downgrade(self), self.watchdog.clone()));
        }
        self.watchdog.wake.notify_one();
    }

    fn look(self: &Arc<Self>) {
        // Before looking: what is enrolled meanwhile lowers it again.
        self.watchdog.next.store(Instant::NEVER.nanos(), Ordering::Release);
        let now = Instant::now();
        let (mut due, mut until, mut seen) = (Vec::new(), now, Vec::new());
        while seen.len() < AT_ONCE
            && let Some(slot) = self.gate.deadlines.pop(until)
        {
            fence(Ordering::SeqCst);
            let Some(lease) = slot.holder() else { continue };
            if lease.tend(now, lease.slack()) {
                // Others that are due soon share its batch.
                until = until.max(now.plus(lease.slack()));
                due.push(lease.clone());
            }
            seen.push(lease);
        }
        #[cfg(feature = "testing")]
        self.watchdog.seen.fetch_add(seen.len() as u64, Ordering::Relaxed);
        // Those in flight too: their end is watched all the same.
        seen.iter().for_each(|lease| self.enroll(lease));
        self.look_by(self.gate.deadlines.first());
        while !due.is_empty() {
            let later = due.split_off(due.len().min(self.backend.batch()));
            runtime::spawn(renew(self.clone(), std::mem::replace(&mut due, later)));
        }
    }
}

async fn watch(core: Weak<Core>, watchdog: Arc<Watchdog>) {
    loop {
        tokio::select! {
            biased;
            () = clock::sleep_until(watchdog.next()) => {}
            () = watchdog.wake.notified() => {}
        }
        let Some(core) = core.upgrade() else { return };
        if watchdog.next().passed() {
            core.look();
            drop(core);
            tokio::task::yield_now().await;
        }
    }
}

async fn renew(core: Arc<Core>, leases: Vec<Arc<Inner>>) {
    let due: Vec<_> = leases.iter().map(|lease| lease.due(None)).collect();
    let asked = Instant::now();
    let answers = core.backend.renew(&due).await;
    if let Some(answer) = answers.iter().find(|answer| answer.is_ok()).or(answers.first()) {
        core.heard(asked, answer);
    }
    let mut answers = answers.into_iter();
    for lease in &leases {
        let answer = answers.next().unwrap_or_else(|| Err(Error::unavailable("the backend gave no answer")));
        // A failure is in the events, and asked again; the lease knows what it means.
        let _ = lease.renewed(answer, false);
        core.enroll(lease);
    }
}
