//! The one connection of a client: made when it is needed, replaced when it is silent, lost or of no use.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use etcd_client::{Client, Error as Etcd};
use tokio::sync::Notify;

use super::error::{Failure, Outcome, of_request};
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::net::Address;
use crate::net::connection::{Connection, SharedConnection};

/// How long a request may be without an answer before it is asked on another connection as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long a server that can't serve now, or can't be reached, is left alone.
const PAUSE: Duration = Duration::from_millis(50);

/// A client's connection, as there is one.
pub(super) struct Link {
    pub(super) addresses: Vec<Address>,
    pub(super) config: Config,
    current: Arc<SharedConnection<Conn>>,
    made: AtomicU64,
}

/// One connection to one server. Closed when nobody waits for an answer on it any more.
pub(super) struct Conn {
    number: u64,
    address: String,
    pub(super) client: Client,
    dead: AtomicBool,
    died: Notify,
}

/// What a request was answered with.
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// When the request was sent that was answered.
    pub(super) sent: Instant,
    /// The connections on which it was sent with no answer, where it may still be done.
    pub(super) unanswered: Unanswered,
}

/// Connections on which something was sent that has no answer, or none that says whether it was done.
pub(super) type Unanswered = Vec<Weak<Conn>>;

/// How long a request is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) patience: Duration,
    pub(super) budget: Duration,
}

/// A request that failed, and where it may still be done all the same.
pub(super) struct Refusal {
    pub(super) failure: Failure,
    pub(super) unanswered: Unanswered,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.failure.error
    }
}

impl Refusal {
    /// Whether it may be done all the same.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.failure.outcome == Outcome::InDoubt || !self.unanswered.is_empty()
    }
}

impl Link {
    pub(super) fn new(addresses: Vec<Address>, config: Config) -> Self {
        Self { addresses, config, current: SharedConnection::new(), made: AtomicU64::new(0) }
    }

    /// How many connections have been made. While it stays the same, all answers are of one cluster's one history.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Acquire)
    }

    /// For a request that is asked elsewhere as well after so long.
    pub(super) fn limits(&self, patience: Duration) -> Limits {
        Limits { patience, budget: self.config.connect_timeout() }
    }

    /// How long one endpoint may take to connect: with several, all have their turn in time.
    pub(super) fn dial_limit(&self) -> Duration {
        let count = u32::try_from(self.addresses.len()).unwrap_or(1).max(1);
        self.config.values().time("dial_timeout").unwrap_or(self.config.connect_timeout() / count)
    }

    /// Does what `work` does on a connection, and again on another one when there is no answer for the patience, when
    /// the connection is lost, or when its server can't; and again there when the server doesn't know what became of
    /// it. `work` may therefore be done twice.
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
            let conn = match self.current.live() {
                Some(conn) => conn,
                // In a box, like all that is rare: every call would have to make room for it.
                None => match Box::pin(self.connected(end)).await {
                    Ok(conn) => conn,
                    Err(failure) => return Err(Refusal { failure, unanswered }),
                },
            };
            let (value, conn, sent) = match self.hedged(conn, limits.patience, end, &work, &mut unanswered).await {
                Some(answered) => answered,
                None => {
                    let error = self.silent("no answer came in time");
                    return Err(Refusal { failure: Failure::in_doubt(error), unanswered });
                }
            };
            let error = match value {
                Ok(value) => return Ok(Answer { value, sent, unanswered }),
                Err(error) => error,
            };
            let failure = of_request(&error, &conn.address);
            let (unknown, said) = (failure.outcome == Outcome::InDoubt, answered_by(&error));
            let lost = failure.outcome == Outcome::TryElsewhere || unknown && !said;
            if lost {
                self.lost(&conn);
            }
            if unknown {
                // Answered by the server's own "don't know", nothing of it is on its way to it any more.
                unanswered.push(if lost { Arc::downgrade(&conn) } else { Weak::new() });
            }
            // A cluster without a leader says so at once, and has one again soon.
            let passing = said && failure.error.is_temporary();
            tries -= usize::from(!passing);
            if !(lost || unknown) || tries == 0 || end.passed() {
                return Err(Refusal { failure, unanswered });
            }
            if passing {
                clock::sleep(PAUSE.min(end.left())).await;
            }
        }
    }

    /// One sending, and another one elsewhere whenever there has been no answer for the patience: whichever answers
    /// first is right. A leader that is gone takes with it what was sent in the meantime.
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
        tokio::select! {
            biased;
            value = &mut first => return Some((value, conn, sent)),
            () = clock::sleep(patience.min(end.left())) => {}
        }
        let mut hedges = vec![Hedge { work: first, conn, sent }];
        let mut answered = None;
        while answered.is_none() && !end.passed() {
            let newest = hedges.last().map(|hedge| hedge.conn.number);
            let next = Instant::now().plus(patience).min(end);
            tokio::select! {
                biased;
                done = first_answer(&mut hedges) => answered = Some(done),
                fresh = self.conn(newest) => match fresh {
                    Ok(conn) => {
                        // Two at a time: nothing more is sent where the others went, so that it closes.
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
                tokio::select! {
                    biased;
                    done = first_answer(&mut hedges) => answered = Some(done),
                    () = clock::sleep_until(next) => {}
                }
            }
        }
        let answered = answered.map(|(at, value)| {
            let hedge = hedges.remove(at);
            (value, hedge.conn, hedge.sent)
        });
        hedges.into_iter().for_each(|hedge| self.abandon(hedge, unanswered));
        answered
    }

    fn abandon<F>(&self, hedge: Hedge<F>, unanswered: &mut Unanswered) {
        self.lost(&hedge.conn);
        unanswered.push(Arc::downgrade(&hedge.conn));
    }

    fn silent(&self, what: &str) -> Error {
        let (names, hint) = (self.names(), self.addresses.first().map_or("", Address::hint));
        Error::unavailable(format!("etcd at {names}: {what}; is it overloaded or stopped, or the network cut{hint}?"))
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    async fn connected(self: &Arc<Self>, end: Instant) -> Result<Arc<Conn>, Failure> {
        tokio::select! {
            biased;
            conn = self.conn(None) => conn.map_err(Failure::not_applied),
            () = clock::sleep_until(end) => Err(Failure::not_applied(self.silent("no connection was made in time"))),
        }
    }

    /// The connection there is, or one made now; `other`: another than the one of this number.
    pub(super) async fn conn(self: &Arc<Self>, other: Option<u64>) -> Result<Arc<Conn>> {
        let make = |number| {
            let link = self.clone();
            async move {
                let made = super::connection::connect(&link, number).await;
                link.made.fetch_add(1, Ordering::AcqRel);
                made.map(Arc::new)
            }
        };
        let made = self.current.get(other, make).await;
        made.unwrap_or_else(|| Err(self.silent("connecting was given up")))
    }

    /// Nothing is asked on this connection any more.
    pub(super) fn lost(&self, conn: &Conn) {
        conn.dead.store(true, Ordering::Release);
        conn.died.notify_waiters();
        self.current.forget(conn.number);
    }
}

/// One sending under way.
struct Hedge<F> {
    work: Pin<Box<F>>,
    conn: Arc<Conn>,
    sent: Instant,
}

/// The first of these to be answered, and its answer.
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

/// Whether it was the server's word, so that the connection is as good as before.
fn answered_by(error: &Etcd) -> bool {
    matches!(error, Etcd::GRpcStatus(status) if status.message().starts_with("etcdserver: "))
}

impl Conn {
    pub(super) fn new(number: u64, address: String, client: Client) -> Self {
        Self { number, address, client, dead: AtomicBool::new(false), died: Notify::new() }
    }

    /// Resolves when nothing is asked on it any more.
    pub(super) async fn gone(&self) {
        let mut died = std::pin::pin!(self.died.notified());
        died.as_mut().enable();
        if !self.is_dead() {
            died.await;
        }
    }
}

impl Connection for Conn {
    fn number(&self) -> u64 {
        self.number
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.names())
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({}, {})", self.number, self.address)
    }
}
