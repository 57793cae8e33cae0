//! The only wait loop: try, wait for the backend's hint, try again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::acquire::{Acquisition, GRACE};
use super::refusal::{busy_error, cancelled, no_answer, timeout_error};
use super::tenure::Granted;
use crate::clock::{self, Instant};
use crate::contract::{Attempt, Contender, RetryHint};
use crate::error::{Error, Kind, Result};
use crate::runtime::lock;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause between two failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Acquisition {
    pub(super) fn waited(&self) -> Duration {
        Instant::now() - self.begun
    }

    /// The error of a lock that is busy, with what is known of its holder.
    pub(super) async fn timeout_error(&self) -> Error {
        timeout_error(&self.resource, &self.claim, self.waited(), GRACE / 2).await
    }

    /// Resolves when the caller is not to wait any longer.
    pub(super) async fn given_up(&self) -> Error {
        tokio::select! {
            biased;
            () = self.cancel.cancelled(1) => cancelled(&self.claim.options),
            () = self.ended() => {
                self.handle.check_open(self.late).err().unwrap_or_else(|| cancelled(&self.claim.options))
            }
            () = clock::sleep_until(self.deadline) => busy_error(&self.resource, &self.claim, self.waited(), ""),
            error = self.resource.shared.outage(self.begun) => error,
        }
    }

    /// Resolves when this handle locks nothing any more.
    async fn ended(&self) {
        tokio::select! {
            biased;
            () = self.handle.closed.cancelled(1) => {}
            () = self.resource.shared.ending.cancelled(1 + u32::from(self.late)) => {}
        }
    }

    /// Tries until the lock is granted or refused, the time is up, the caller cancels, or the backend has not answered this
    /// contender, or anybody, for too long.
    ///
    /// # Errors
    /// The reason why there is no grant. The contender has to be withdrawn.
    pub(super) async fn wait(&self, contender: &mut dyn Contender) -> Result<Granted> {
        let shared = &self.resource.shared;
        let limit = shared.connect_timeout();
        let mut failing = None;
        let mut pause = FIRST_PAUSE;
        let mut last = false;
        loop {
            let (asked, answer) = self.attempt(contender, last).await;
            let hint = match answer {
                Ok(Attempt::Granted { grant, since, ttl }) => return Ok(Granted { grant, since, ttl }),
                Ok(Attempt::Busy(hint)) => {
                    self.progress.busy.store(true, Ordering::Relaxed);
                    failing = None;
                    pause = FIRST_PAUSE;
                    if !self.claim.wait || last {
                        return Err(Box::pin(self.timeout_error()).await);
                    }
                    hint
                }
                Err(error) => {
                    // Also for a caller that is answered before the withdrawal has ended.
                    *lock(&self.progress.last_error) = Some(error.clone());
                    // The very first contact is not repeated: a wrong address is reported at once.
                    let again = error.is_temporary() && self.claim.wait && !last && shared.outage.has_answered();
                    if !again {
                        return Err(error);
                    }
                    let (since, _) = failing.get_or_insert_with(|| (asked, shared.outage.asking()));
                    if Instant::now() - *since >= limit {
                        return Err(error);
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    RetryHint { after: pause.mul_f64(0.75 + fastrand::f64() / 2.0), on: None }
                }
            };
            let on = async {
                match hint.on {
                    Some(on) => on.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                error = self.given_up() => match error.kind() {
                    // Time is up, but the lock may have become free meanwhile: one last try.
                    Kind::Timeout => last = true,
                    _ => return Err(error),
                },
                () = on => {}
                () = clock::sleep(hint.after), if !mutant!("no-safety-net") => {}
            }
        }
    }

    /// Tries once, and takes note of what the backend answered.
    async fn attempt(&self, contender: &mut dyn Contender, last: bool) -> (Instant, Result<Attempt>) {
        let shared = &self.resource.shared;
        let limit = shared.connect_timeout();
        let budget = if last || !self.claim.wait { limit } else { self.deadline.left().min(limit) };
        // An attempt that would only find an outage is not to find it late.
        let budget = budget.min(shared.outage.end(self.begun, limit).left().max(GRACE));
        let asked = Instant::now();
        let mut attempt = contender.attempt(budget);
        let answer = tokio::select! {
            biased;
            answer = &mut attempt => answer,
            () = clock::sleep(budget.max(limit).saturating_add(GRACE)) => {
                self.progress.silent.notify_one();
                shared.failed(asked, &no_answer());
                attempt.await
            }
        };
        shared.answered(asked, &answer);
        (asked, answer)
    }
}
