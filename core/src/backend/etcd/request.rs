//! Requests to etcd: sent on the link's connection, on further ones after a silence, and again after a failure.

use std::sync::{Arc, Weak};
use std::time::Duration;

use etcd_client::Error as Etcd;

use super::connection::{Conn, Link};
use super::error::{is_answer, of_request};
use crate::clock::{self, Instant};
use crate::net::failure::{Failure, Outcome};
use crate::net::request::{self, Limits};

/// The time for which a server that can't serve now, or can't be reached, is left alone.
const PAUSE: Duration = Duration::from_millis(50);

/// The answer to a request.
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// The time when the request was sent that was answered.
    pub(super) sent: Instant,
    /// The connections on which it had no answer and may still be applied.
    pub(super) unanswered: Unanswered,
}

/// Connections on which a request had no answer, or none that says whether it was applied.
pub(super) type Unanswered = Vec<Weak<Conn>>;

/// A request that failed.
pub(super) type Refusal = request::Refusal<Weak<Conn>>;

impl Link {
    /// Does `work` on a connection, and again on another one if there is no answer for the patience, if the connection
    /// is lost, or if its server can't serve; and again on the same one if the server doesn't know the outcome. So
    /// `work` may be done twice.
    pub(super) async fn ask<T: Send, F>(
        self: &Arc<Self>,
        limits: Limits,
        work: impl Fn(Arc<Conn>) -> F + Sync,
    ) -> Result<Answer<T>, Refusal>
    where
        F: Future<Output = Result<T, Etcd>> + Send,
    {
        let end = Instant::now().plus(limits.budget);
        let mut unanswered = Vec::new();
        let mut tries = self.addresses.len() + 1;
        loop {
            let conn = match self.connected(end).await {
                Ok(conn) => conn,
                Err(failure) => return Err(Refusal { failure, unanswered }),
            };
            let hedged = self
                .hedged(conn, limits.patience, end, |conn| async {
                    let sent = Instant::now();
                    (work(conn.clone()).await, conn, sent)
                })
                .await;
            for conn in hedged.unanswered {
                self.give_up(&conn);
                unanswered.push(Arc::downgrade(&conn));
            }
            let Some((value, conn, sent)) = hedged.answer else {
                let failure = Failure::in_doubt(self.silence("no answer came in time"));
                return Err(Refusal { failure, unanswered });
            };
            let error = match value {
                Ok(value) => return Ok(Answer { value, sent, unanswered }),
                Err(error) => error,
            };
            let failure = of_request(&error, &conn.address);
            let (in_doubt, answered) = (failure.outcome == Outcome::InDoubt, is_answer(&error));
            let lost = failure.outcome == Outcome::TryElsewhere || in_doubt && !answered;
            if lost {
                self.give_up(&conn);
            }
            if in_doubt {
                // After the server's own answer "don't know" nothing of the request is in the network any more.
                unanswered.push(if lost { Arc::downgrade(&conn) } else { Weak::new() });
            }
            // A cluster without a leader says so at once, and has one again soon.
            let passing = answered && failure.error.is_temporary();
            tries -= usize::from(!passing);
            if !(lost || in_doubt) || tries == 0 || end.passed() {
                return Err(Refusal { failure, unanswered });
            }
            if passing {
                clock::sleep(PAUSE.min(end.left())).await;
            }
        }
    }
}
