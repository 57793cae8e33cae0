//! Requests: their limits, and what is known of one that failed.

use std::time::Duration;

use super::failure::{Failure, Outcome};
use crate::clock;
use crate::error::Error;

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The time after which it is sent on another connection too.
    pub(crate) patience: Duration,
    /// The time after which it is given up.
    pub(crate) budget: Duration,
}

/// A request that failed. `S` is one sending of it.
#[derive(Debug)]
pub(crate) struct Refusal<S> {
    pub(crate) failure: Failure,
    /// The sendings that may be applied all the same.
    pub(crate) unanswered: Vec<S>,
}

impl<S> Refusal<S> {
    /// Returns the refusal of a request that was not applied.
    pub(crate) fn not_applied(error: Error) -> Self {
        Failure::not_applied(error).into()
    }

    /// Returns true if the request may be applied all the same.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.failure.outcome == Outcome::InDoubt || !self.unanswered.is_empty()
    }
}

impl<S> From<Failure> for Refusal<S> {
    fn from(failure: Failure) -> Self {
        Self { failure, unanswered: Vec::new() }
    }
}

impl<S> From<Refusal<S>> for Error {
    fn from(refusal: Refusal<S>) -> Self {
        refusal.failure.error
    }
}

/// Waits for an answer, but not longer than this.
pub(crate) async fn answer_within<T>(limit: Duration, answer: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = clock::sleep(limit) => None,
    }
}
