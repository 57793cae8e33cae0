//! Every time that is derived from a ttl.

use std::time::Duration;

/// The share of a ttl that is given up for clocks that run at different rates: 1 % and 2 ms.
pub(crate) fn drift(ttl: Duration) -> Duration {
    if mutant!("no-drift") { Duration::ZERO } else { ttl / 100 + Duration::from_millis(2) }
}

/// The time from one renewal to the next.
pub(crate) fn renewal_interval(ttl: Duration) -> Duration {
    ttl / 3
}

/// How much earlier than due a lease may be renewed, to share a request with others.
pub(crate) fn renewal_slack(ttl: Duration) -> Duration {
    ttl / 30
}

/// The pause after a renewal without an answer, jitter included.
pub(crate) fn renewal_retry(ttl: Duration) -> Duration {
    let pause = ttl / 10;
    pause + pause.mul_f64(fastrand::f64() / 4.0)
}

/// How long before its end a loss is reported, so that the holder learns of it before another can be granted the lock.
pub(crate) fn warn_margin(ttl: Duration) -> Duration {
    if mutant!("loss-told-late") { Duration::ZERO } else { (ttl / 4).min(Duration::from_millis(50)) }
}
