//! The renewal of one lease: when it is due, and what an answer means.

use std::sync::Arc;
use std::time::Duration;

use super::status::{LossReason, State};
use super::tenure::Tenure;
use crate::clock::Instant;
use crate::contract::{DueLease, Renewal};
use crate::error::Result;
use crate::observe::event::EventKind;
use crate::timing::{renewal_retry, renewal_slack};

/// The least ttl that a backend is asked for with a lease that is only validated.
const VALIDATED: Duration = Duration::from_millis(100);

impl Tenure {
    /// The time at which the watchdog has something to do with this lease.
    fn next_timeout(&self) -> Instant {
        match self.state() {
            State::Held => self.validity.renew_at().min(self.validity.warn_at()),
            State::Lost if !self.status.is_releasing() => self.end_at(),
            _ => Instant::NEVER,
        }
    }

    /// The time at which a lost lease is given back at the backend: not before its time, which its holder was promised.
    fn end_at(&self) -> Instant {
        if self.status.reason() == LossReason::Taken { Instant::START } else { self.validity.end() }
    }

    /// Makes the watchdog look at this lease when it needs something.
    pub(crate) fn schedule(&self) {
        let next = self.next_timeout();
        if next != Instant::NEVER {
            self.turn.queue().schedule(next);
        }
    }

    /// Makes the watchdog renew this lease at once: it may be lost.
    pub(crate) fn suspect(&self) {
        self.validity.suspect();
        self.turn.queue().schedule(Instant::START);
    }

    /// Returns how much earlier than due this lease may be renewed, to share a request.
    pub(crate) fn slack(&self) -> Duration {
        renewal_slack(self.ttl())
    }

    /// Does what is due by now. True: it is to be renewed.
    pub(crate) fn handle_timeout(self: &Arc<Self>, now: Instant) -> bool {
        if self.state() == State::Held && self.validity.warn_at() <= now {
            let held_too_long = self.validity.warn_of_hold_at() <= now;
            self.lose(if held_too_long { LossReason::HeldTooLong } else { LossReason::Expired });
        }
        if self.state() == State::Lost && self.end_at() <= now {
            self.release_at_backend();
        }
        (self.state() == State::Held || mutant!("renew-after-release"))
            && self.validity.renew_at() <= now.plus(self.slack())
            && self.validity.begin_renewal()
    }

    /// Returns what the backend is asked for. With no ttl, as the watchdog asks: for a lease that isn't renewed no more
    /// than what is left of it.
    pub(crate) fn due(&self, ttl: Option<Duration>) -> DueLease {
        let usual = || match self.claim.options.auto_renew {
            true => self.ttl(),
            false => self.validity.expires().left().max(VALIDATED).min(self.ttl()),
        };
        DueLease { grant: self.grant.clone(), ttl: ttl.unwrap_or_else(usual) }
    }

    /// Takes in the answer to a renewal. Only time and the backend's word end a lease: "don't know" is asked again.
    ///
    /// # Errors
    /// `Lost`, and whatever kept the backend from answering.
    pub(crate) fn renewed(&self, answer: Result<Renewal>, by_hand: bool) -> Result<()> {
        let now = Instant::now();
        let mut failure = None;
        match answer {
            Ok(Renewal::Lost) if mutant!("loss-ignored") => {}
            // A lease that was only validated ends when it would have.
            Ok(Renewal::Kept { .. }) if !by_hand && !self.claim.options.auto_renew => {
                self.validity.renew_by(Instant::NEVER);
            }
            Ok(Renewal::Kept { since, ttl }) => {
                self.validity.extend(self.shared().not_in_the_future(since, now), ttl);
                self.emit(|| EventKind::Renewed);
            }
            Ok(Renewal::Lost) => {
                self.lose(LossReason::Taken);
                failure = Some(self.not_held_error());
            }
            Err(_) if mutant!("unknown-is-lost") => self.lose(LossReason::Unknown),
            Err(error) => {
                let renewed = self.shared().is_renewed(&self.claim.options);
                self.validity.renew_by(if renewed { now.plus(renewal_retry(self.ttl())) } else { Instant::NEVER });
                self.emit(|| EventKind::RenewalFailed { error: error.to_string() });
                failure = Some(error.with_key(self.key().clone()));
            }
        }
        self.validity.end_renewal();
        failure.map_or(Ok(()), Err)
    }
}
