//! The only renewal loop: one task a client. It sleeps until the earliest moment at which a held lease needs something,
//! then looks at all that are held. Nothing is queued per lease, so taking and giving back a lock costs it nothing.
//!
//! Correctness never depends on its punctuality: whether a lease counts is computed from the clock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use crate::client::Core;
use crate::clock::{self, Instant};
use crate::error::Error;
use crate::lease::Inner;
use crate::runtime;

#[derive(Debug)]
pub(crate) struct Watchdog {
    next: AtomicU64,
    started: AtomicBool,
    wake: Notify,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(Instant::NEVER.nanos()), started: AtomicBool::new(false), wake: Notify::new() }
    }

    /// For when its client ends.
    pub(crate) fn stop(&self) {
        self.wake.notify_one();
    }

    fn next(&self) -> Instant {
        Instant::from_nanos(self.next.load(Ordering::Acquire))
    }
}

impl Core {
    /// Sees to it that the watchdog looks at this lease when it needs something.
    pub(crate) fn enroll(self: &Arc<Self>, lease: &Inner) {
        self.look_by(lease.next());
    }

    /// Has the lease held under this name renewed at once.
    pub(crate) fn suspect(self: &Arc<Self>, name: &str) {
        if let Some(lease) = self.gate.find(name).and_then(|slot| slot.holder()) {
            lease.suspect();
            self.look_by(Instant::START);
        }
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
        let mut due = Vec::new();
        let mut next = Instant::NEVER;
        for lease in self.gate.holders() {
            if lease.tend(now, lease.slack()) {
                due.push(lease);
            } else {
                next = next.min(lease.next());
            }
        }
        for lease in &due {
            // In flight; its end is watched all the same.
            next = next.min(lease.next());
        }
        self.watchdog.next.fetch_min(next.nanos(), Ordering::AcqRel);
        while !due.is_empty() {
            let batch = due.split_off(due.len().saturating_sub(self.backend.batch()));
            runtime::spawn(renew(self.clone(), batch));
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
        let _ = lease.renewed(answer);
        core.enroll(lease);
    }
}
