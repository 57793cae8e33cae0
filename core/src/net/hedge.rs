//! Hedged requests: a request without an answer is sent on another connection too, and the first answer counts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::link::{Link, Wire};
use super::request::answer_within;
use crate::clock::{self, Instant};

/// The result of a hedged request.
pub(crate) struct Hedged<W, T> {
    /// The first answer. `None`: none came in time.
    pub(crate) answer: Option<T>,
    /// The connections on which the request had no answer, in the order of the sendings.
    pub(crate) unanswered: Vec<Arc<W>>,
}

/// A sending in progress.
struct Sending<'a, W, T> {
    conn: Arc<W>,
    work: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
}

impl<W: Wire> Link<W> {
    /// Does `work` on a connection, and on another one too whenever there was no answer for the patience, until `end`.
    /// A server that is gone takes with it the requests that were sent to it in the meantime.
    pub(crate) async fn hedged<T: Send, F: Future<Output = T> + Send>(
        self: &Arc<Self>,
        conn: Arc<W>,
        patience: Duration,
        end: Instant,
        work: impl Fn(Arc<W>) -> F + Sync,
    ) -> Hedged<W, T> {
        let mut first = std::pin::pin!(work(conn.clone()));
        match answer_within(patience.min(end.left()), &mut first).await {
            Some(answer) => Hedged { answer: Some(answer), unanswered: Vec::new() },
            // In a box, like all rare futures: otherwise the future of every request would be larger.
            None => Box::pin(self.hedge(Sending { conn, work: Box::pin(first) }, patience, end, work)).await,
        }
    }

    /// Waits for the answer to a sending, and sends the request again.
    async fn hedge<'a, T: Send + 'a, F: Future<Output = T> + Send + 'a>(
        self: &Arc<Self>,
        first: Sending<'a, W, T>,
        patience: Duration,
        end: Instant,
        work: impl Fn(Arc<W>) -> F + Sync,
    ) -> Hedged<W, T> {
        let (mut sendings, mut unanswered, mut answer) = (vec![first], Vec::new(), None);
        while answer.is_none() && !end.passed() {
            let newest = sendings.last().map(|sending| sending.conn.status().number());
            tokio::select! {
                biased;
                first = first_answer(&mut sendings) => answer = Some(first),
                fresh = self.connect(newest) => if let Ok(conn) = fresh {
                    // Two at a time: a connection without further requests closes.
                    if sendings.len() > 1 {
                        let oldest = sendings.remove(0).conn;
                        self.give_up(&oldest);
                        unanswered.push(oldest);
                    }
                    sendings.push(Sending { work: Box::pin(work(conn.clone())), conn });
                },
                () = clock::sleep_until(end) => {}
            }
            if answer.is_none() {
                answer = answer_within(patience.min(end.left()), first_answer(&mut sendings)).await;
            }
        }
        let answer = answer.map(|(at, value)| {
            sendings.remove(at);
            value
        });
        unanswered.extend(sendings.into_iter().map(|sending| sending.conn));
        Hedged { answer, unanswered }
    }
}

/// Waits for the first answer, and returns it with the place of its sending.
async fn first_answer<W, T>(sendings: &mut [Sending<'_, W, T>]) -> (usize, T) {
    std::future::poll_fn(|cx| {
        for (at, sending) in sendings.iter_mut().enumerate() {
            if let Poll::Ready(value) = sending.work.as_mut().poll(cx) {
                return Poll::Ready((at, value));
            }
        }
        Poll::Pending
    })
    .await
}
