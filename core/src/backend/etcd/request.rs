//! Requests to etcd: sent on the link's connection, on further ones after a silence, and again after a failure.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use etcd_client::Error as Etcd;

use super::connection::{Conn, Link};
use super::error::{is_answer, of_request};
use crate::clock::{self, Instant};
use crate::net::failure::{Failure, Outcome};
use crate::net::request::{self, Limits, answer_within};

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
    pub(super) async fn ask<T, F>(
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
            let answered = self.hedged(conn, limits.patience, end, &work, &mut unanswered).await;
            let Some((value, conn, sent)) = answered else {
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

    /// Sends a request, and sends it on another connection whenever there was no answer for the patience. The first
    /// answer counts. A leader that is gone takes with it the requests that were sent in the meantime.
    async fn hedged<T, F>(
        self: &Arc<Self>,
        conn: Arc<Conn>,
        patience: Duration,
        end: Instant,
        work: &(impl Fn(Arc<Conn>) -> F + Sync),
        unanswered: &mut Unanswered,
    ) -> Option<(Result<T, Etcd>, Arc<Conn>, Instant)>
    where
        F: Future<Output = Result<T, Etcd>> + Send,
    {
        let sent = Instant::now();
        let mut first = Box::pin(work(conn.clone()));
        if let Some(value) = answer_within(patience.min(end.left()), &mut first).await {
            return Some((value, conn, sent));
        }
        let mut hedges = vec![Hedge { work: first, conn, sent }];
        let mut answered = None;
        while answered.is_none() && !end.passed() {
            let newest = hedges.last().map(|hedge| hedge.conn.status.number());
            let next = Instant::now().plus(patience).min(end);
            tokio::select! {
                biased;
                done = first_answer(&mut hedges) => answered = Some(done),
                fresh = self.connect(newest) => match fresh {
                    Ok(conn) => {
                        // Two at a time: a connection without further requests closes.
                        while hedges.len() > 1 {
                            self.abandon(hedges.remove(0), unanswered);
                        }
                        let (work, sent) = (Box::pin(work(conn.clone())), Instant::now());
                        hedges.push(Hedge { work, conn, sent });
                    }
                    Err(_) => clock::sleep(PAUSE.min(end.left())).await,
                },
                () = clock::sleep_until(end) => {}
            }
            if answered.is_none() {
                answered = answer_within(next.left(), first_answer(&mut hedges)).await;
            }
        }
        let answered = answered.map(|(at, value)| {
            let hedge = hedges.remove(at);
            (value, hedge.conn, hedge.sent)
        });
        hedges.into_iter().for_each(|hedge| self.abandon(hedge, unanswered));
        answered
    }

    /// Gives up a sending and its connection.
    fn abandon<F>(&self, hedge: Hedge<F>, unanswered: &mut Unanswered) {
        self.give_up(&hedge.conn);
        unanswered.push(Arc::downgrade(&hedge.conn));
    }
}

/// A sending in progress.
struct Hedge<F> {
    work: Pin<Box<F>>,
    conn: Arc<Conn>,
    sent: Instant,
}

/// Waits for the first answer, and returns it with the number of its sending.
async fn first_answer<T, F: Future<Output = T>>(hedges: &mut [Hedge<F>]) -> (usize, T) {
    std::future::poll_fn(|cx| {
        for (at, hedge) in hedges.iter_mut().enumerate() {
            if let Poll::Ready(value) = hedge.work.as_mut().poll(cx) {
                return Poll::Ready((at, value));
            }
        }
        Poll::Pending
    })
    .await
}
