//! The validity of a lease: until when it counts, when it is renewed, and when its end is reported. No I/O.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Instant;
use crate::timing::{drift, renewal_interval, warn_margin};

/// The times of one lease.
#[derive(Debug)]
pub(crate) struct Validity {
    /// The end of the backend's own countdown, and the time at which the lease stops counting; `NEVER`: the process is
    /// the lease.
    expires: AtomicU64,
    valid_until: AtomicU64,
    /// The time of the next renewal. `START`: at once, since it is suspected to be lost.
    renew_at: AtomicU64,
    /// True if a renewal is under way.
    renewing: AtomicBool,
    ttl: AtomicU64,
    max_hold: Option<Duration>,
    /// The end of the longest hold; `NEVER`: there is none.
    hold_end: Instant,
    unexpiring: bool,
    /// True if the watchdog renews it.
    renewed: bool,
}

/// The options of a lease that decide its times.
pub(crate) struct Policy {
    /// The lease has no end of its own.
    pub(crate) unexpiring: bool,
    /// The watchdog renews it.
    pub(crate) renewed: bool,
    pub(crate) max_hold: Option<Duration>,
}

/// The end of the backend's countdown, and the time from which the lease doesn't count.
fn ends(unexpiring: bool, since: Instant, ttl: Duration) -> (Instant, Instant) {
    match unexpiring {
        true => (Instant::NEVER, Instant::NEVER),
        false => (since.plus(ttl), since.plus(ttl).minus(drift(ttl))),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Validity {
    /// The times of a lease that was granted at `granted`, and whose countdown at the backend runs from `since`.
    pub(crate) fn new(policy: &Policy, granted: Instant, since: Instant, ttl: Duration) -> Self {
        let hold_from = if mutant!("hold-from-request") { since } else { granted };
        let (expires, valid_until) = ends(policy.unexpiring, since, ttl);
        let renew_at = if policy.renewed { since.plus(renewal_interval(ttl)) } else { Instant::NEVER };
        Self {
            expires: AtomicU64::new(expires.nanos()),
            valid_until: AtomicU64::new(valid_until.nanos()),
            renew_at: AtomicU64::new(renew_at.nanos()),
            renewing: AtomicBool::new(false),
            ttl: AtomicU64::new(nanos(ttl)),
            max_hold: policy.max_hold,
            hold_end: policy.max_hold.map_or(Instant::NEVER, |hold| hold_from.plus(hold)),
            unexpiring: policy.unexpiring,
            renewed: policy.renewed,
        }
    }

    /// Takes in a renewal: the countdown of `ttl` runs from `since`.
    pub(crate) fn extend(&self, since: Instant, ttl: Duration) {
        let (expires, valid_until) = ends(self.unexpiring, since, ttl);
        self.ttl.store(nanos(ttl), Ordering::Release);
        self.expires.fetch_max(expires.nanos(), Ordering::AcqRel);
        self.valid_until.fetch_max(valid_until.nanos(), Ordering::AcqRel);
        self.renew_by(if self.renewed { since.plus(renewal_interval(ttl)) } else { Instant::NEVER });
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_nanos(self.ttl.load(Ordering::Acquire))
    }

    /// The end of the backend's countdown.
    pub(crate) fn expires(&self) -> Instant {
        Instant::from_nanos(self.expires.load(Ordering::Acquire))
    }

    /// The time from which the lease doesn't count.
    pub(crate) fn until(&self) -> Instant {
        Instant::from_nanos(self.valid_until.load(Ordering::Acquire)).min(self.hold_end)
    }

    /// Returns when the lock ends at the backend: by its ttl, or since the longest hold is over.
    pub(crate) fn end(&self) -> Instant {
        self.expires().min(self.hold_end)
    }

    /// Returns true if the longest hold is over.
    pub(crate) fn is_held_too_long(&self) -> bool {
        self.hold_end.passed()
    }

    /// Returns when the end of the longest hold is reported: early too, and by a quarter of the hold at the most.
    pub(crate) fn warn_of_hold_at(&self) -> Instant {
        let hold = self.max_hold.unwrap_or(Duration::MAX);
        self.hold_end.minus(warn_margin(self.ttl()).min(hold / 4))
    }

    /// Returns when the end of the lease is reported.
    pub(crate) fn warn_at(&self) -> Instant {
        if mutant!("never-lost") {
            return Instant::NEVER;
        }
        let valid_until = Instant::from_nanos(self.valid_until.load(Ordering::Acquire));
        valid_until.minus(warn_margin(self.ttl())).min(self.warn_of_hold_at())
    }

    /// Returns when the watchdog renews it; `NEVER` while a renewal is under way.
    pub(crate) fn renew_at(&self) -> Instant {
        if self.renewing.load(Ordering::Acquire) {
            return Instant::NEVER;
        }
        Instant::from_nanos(self.renew_at.load(Ordering::Acquire))
    }

    /// Begins a renewal. False: one is under way.
    pub(crate) fn begin_renewal(&self) -> bool {
        if self.renewing.swap(true, Ordering::AcqRel) {
            return false;
        }
        // From here on `START` is a new suspicion, which the answer that is now asked for doesn't settle.
        self.renew_at.store(Instant::NEVER.nanos(), Ordering::Release);
        true
    }

    /// Ends a renewal.
    pub(crate) fn end_renewal(&self) {
        self.renewing.store(false, Ordering::Release);
    }

    /// Schedules the next renewal, unless it is suspected to be lost in the meantime.
    pub(crate) fn renew_by(&self, then: Instant) {
        let unless_suspect = |at| (at != Instant::START.nanos()).then_some(then.nanos());
        let _ = self.renew_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, unless_suspect);
    }

    /// Schedules a renewal at once.
    pub(crate) fn suspect(&self) {
        self.renew_at.store(Instant::START.nanos(), Ordering::Release);
    }
}
