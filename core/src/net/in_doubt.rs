//! Requests without an answer, and the time until which they can still be applied.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::request::Refusal;
use crate::{clock, runtime};

/// Requests without an answer, for a server that refuses each after its deadline.
#[derive(Debug, Default)]
pub(crate) struct InDoubt {
    /// The deadline of each request by the server's clock, in milliseconds, and the number of its connection.
    requests: Vec<(i64, u64)>,
}

impl InDoubt {
    /// Adds a request.
    pub(crate) fn add(&mut self, deadline: i64, connection: u64) {
        self.requests.push((deadline, connection));
    }

    /// Removes the requests of a connection on which a later one was answered: they were executed before it.
    pub(crate) fn answered_on(&mut self, connection: u64) {
        self.requests.retain(|(_, sent_on)| *sent_on != connection);
    }

    /// Returns true if no request is in doubt.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Returns the time of the server's clock until which a request may be applied.
    pub(crate) fn until(&self) -> i64 {
        self.requests.iter().map(|(deadline, _)| *deadline).max().unwrap_or(0)
    }
}

/// The remnant of a claim that ended: one of its requests had no answer, and may still be applied at the server.
pub(crate) trait Remnant: Send + 'static {
    /// Takes back what has been applied. Returns true once nothing can be applied any more.
    fn take_back(&mut self) -> impl Future<Output = bool> + Send;

    /// Returns the pause before the next try.
    fn pause(&mut self) -> Duration;
}

/// Takes a remnant back in the background, again and again until nothing can be applied any more.
pub(crate) fn take_back(mut remnant: impl Remnant) {
    runtime::spawn(async move {
        while !remnant.take_back().await {
            clock::sleep(remnant.pause()).await;
        }
    });
}

/// Returns true if all these connections are closed, so that no request that was sent on them can be applied any more.
pub(crate) fn all_closed<C>(connections: &[Weak<C>]) -> bool {
    connections.iter().all(|connection| connection.strong_count() == 0)
}

/// The releases of one grant that had no answer.
#[derive(Debug, Default)]
pub(crate) struct UnansweredRelease(AtomicBool);

impl UnansweredRelease {
    /// Notes a release that failed.
    pub(crate) fn note<S>(&self, refusal: &Refusal<S>) {
        if refusal.is_in_doubt() {
            self.0.store(true, Ordering::Release);
        }
    }

    /// Returns true if a sending other than the answered one may have released the lock; `unanswered`: the others of
    /// the release that was answered.
    pub(crate) fn may_have_released<S>(&self, unanswered: &[S]) -> bool {
        !unanswered.is_empty() || self.0.load(Ordering::Acquire)
    }
}
