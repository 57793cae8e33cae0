//! The times that are derived from a ttl, and the pauses of pollers.

use std::time::Duration;

/// The limits that all languages share.
pub mod limits {
    use std::time::Duration;

    /// The time for which the close of a client waits for the release of its leases, in a language that gives it no
    /// limit.
    pub const CLOSE: Duration = Duration::from_secs(5);
    /// The time for which a cancelled acquire waits for its withdrawal.
    pub const WITHDRAWAL: Duration = Duration::from_millis(250);
    /// The time for which an orderly exit waits for releases and withdrawals.
    pub const EXIT: Duration = Duration::from_secs(1);
}

/// The share of a ttl that is given up for clocks that run at different rates: 1 % and 2 ms.
pub(crate) fn drift(ttl: Duration) -> Duration {
    if mutant!("no-drift") { Duration::ZERO } else { ttl / 100 + Duration::from_millis(2) }
}

/// The time from one renewal to the next.
pub(crate) fn renewal_interval(ttl: Duration) -> Duration {
    ttl / 3
}

/// Returns how much earlier than due a lease may be renewed, to share a request with others.
pub(crate) fn renewal_slack(ttl: Duration) -> Duration {
    ttl / 30
}

/// The pause after a renewal without an answer, jitter included.
pub(crate) fn renewal_retry(ttl: Duration) -> Duration {
    let pause = ttl / 10;
    pause + pause.mul_f64(fastrand::f64() / 4.0)
}

/// Returns how long before its end a loss is reported, so that the holder learns of it before another can be granted
/// the lock.
pub(crate) fn warn_margin(ttl: Duration) -> Duration {
    if mutant!("loss-told-late") { Duration::ZERO } else { (ttl / 4).min(Duration::from_millis(50)) }
}

/// The longest time that a request has no answer before it is sent on another connection too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The time after which a request about a lock of this ttl is sent on another connection too.
pub(crate) fn patience(ttl: Duration) -> Duration {
    (ttl / 4).clamp(Duration::from_millis(50), PATIENCE)
}

/// The time from one refresh of a place in a queue to the next.
pub(crate) fn queue_refresh(ttl: Duration) -> Duration {
    (ttl / 3).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

/// The time for which a place in a queue lives without a refresh.
pub(crate) fn queue_lifetime(ttl: Duration) -> Duration {
    queue_refresh(ttl) * 3
}

/// The age up to which a grant that was handed over counts without another request.
pub(crate) fn handover_limit(ttl: Duration) -> Duration {
    ttl / 2
}

/// The time from one keep-alive of a session with claims to the next, and from one try to take back a key to the next.
pub(crate) fn session_refresh(ttl: Duration) -> Duration {
    ttl / 3
}

/// The age up to which a session is given to a claim without a keep-alive.
pub(crate) fn session_limit(ttl: Duration) -> Duration {
    ttl / 2
}

/// The age up to which a session that one claim has for itself serves for a grant.
pub(crate) fn dedicated_limit(ttl: Duration) -> Duration {
    ttl / 10
}

/// The age up to which a keep-alive serves another renewal too.
pub(crate) fn shared_keep_alive(ttl: Duration) -> Duration {
    ttl / 20
}

/// The pauses of what is tried again and again: each is twice as long as the one before, up to a limit. With jitter, so
/// that many don't try at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// The first pause.
    const FIRST: Duration = Duration::from_millis(10);

    /// Returns pauses up to this.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: Self::FIRST, longest }
    }

    /// Returns the pauses of a contender that polls: up to 250 ms.
    pub(crate) fn polls() -> Self {
        Self::up_to(Duration::from_millis(250))
    }

    /// Returns the next pause: between half of it and the whole.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Starts again with the shortest pause.
    pub(crate) fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

/// Returns whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
