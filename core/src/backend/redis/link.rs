//! The one connection of a client: made when it is needed, replaced when it is silent, asked by scripts.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};

use super::error::{Failure, Outcome, no_script, of_request};
use super::inbox::Inbox;
use super::script::{COUNT, Script};
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::net::Address;
use crate::net::connection::{Connection, SharedConnection};
use crate::runtime::{self, lock};

/// How long a request may be without an answer before it is asked on another connection as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection is kept at least though its server doesn't do what it is asked. Doubled up to `TRIED_DOUBLED`
/// times while the next server doesn't do it either, as during the minutes in which one loads its data.
const TRIED: Duration = Duration::from_millis(100);
const TRIED_DOUBLED: u32 = 3;

/// A client's connection, as there is one.
pub(super) struct Link {
    pub(super) address: Address,
    pub(super) config: Config,
    pub(super) inbox: Arc<Inbox>,
    current: Arc<SharedConnection<Conn>>,
    probing: AtomicBool,
    /// How many connections in a row were left because their server didn't do what it was asked.
    left: AtomicU32,
    /// Whether it was told that messages don't arrive.
    pub(super) deaf: AtomicBool,
}

/// One connection to the server. Closed when nobody waits for an answer on it any more.
pub(super) struct Conn {
    pub(super) number: u64,
    pub(super) made: Instant,
    pub(super) mux: MultiplexedConnection,
    /// The server's clock less ours, in milliseconds.
    pub(super) offset: AtomicI64,
    /// The hashes of the scripts it has loaded.
    pub(super) hashes: [Option<String>; COUNT],
    /// Whether messages arrive.
    pub(super) messages: bool,
    /// Whether it tells of changes of keys.
    pub(super) tracking: bool,
    pub(super) dead: AtomicBool,
    pub(super) tasks: Vec<tokio::task::AbortHandle>,
}

/// One sending of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    /// What the server's clock showed, in milliseconds.
    pub(super) server_ms: i64,
    /// The number of the connection.
    pub(super) conn: u64,
    /// Whether messages arrive on it.
    pub(super) messages: bool,
}

/// What a request was answered with.
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) conn: Arc<Conn>,
    /// The sending that was answered.
    pub(super) sent: Sent,
    /// Those that were not, and may still be done.
    pub(super) unanswered: Vec<Sent>,
}

/// How long a request is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) patience: Duration,
    pub(super) budget: Duration,
}

impl Link {
    /// For a request that is asked elsewhere as well after so long.
    pub(super) fn limits(&self, patience: Duration) -> Limits {
        Limits { patience, budget: self.config.connect_timeout() }
    }

    pub(super) fn new(address: Address, config: Config, inbox: Arc<Inbox>) -> Self {
        let (probing, deaf) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { address, config, inbox, current: SharedConnection::new(), probing, left: AtomicU32::new(0), deaf }
    }

    /// Runs a script. `args` adds keys and arguments each time it is sent: a request without an answer is sent again on
    /// another connection, which every script allows.
    pub(super) async fn run(
        self: &Arc<Self>,
        script: Script,
        limits: Limits,
        args: impl Fn(&Sent, &mut Cmd) + Sync,
    ) -> Result<Answer, Failure> {
        self.ask(limits, |conn, sent, full| {
            let mut cmd = Cmd::with_capacity(20, 768);
            match &conn.hashes[script as usize] {
                Some(hash) if !full => cmd.arg("EVALSHA").arg(hash),
                _ => cmd.arg("EVAL").arg(script.text()),
            };
            args(sent, &mut cmd);
            cmd
        })
        .await
    }

    /// Sends what `make` makes, and again on another connection when there is no answer for the patience, or when this
    /// server doesn't do it now: a name may lead to another one after a failover.
    pub(super) async fn ask(
        self: &Arc<Self>,
        limits: Limits,
        make: impl Fn(&Conn, &Sent, bool) -> Cmd + Sync,
    ) -> Result<Answer, Failure> {
        let end = Instant::now().plus(limits.budget);
        match self.ask_once(limits, end, &make).await {
            Err(failure) if failure.elsewhere => Box::pin(self.ask_elsewhere(limits, end, &make, failure)).await,
            other => other,
        }
    }

    /// Asks again where the address leads now, until there is no time left for it.
    async fn ask_elsewhere(
        self: &Arc<Self>,
        limits: Limits,
        end: Instant,
        make: &(impl Fn(&Conn, &Sent, bool) -> Cmd + Sync),
        mut last: Failure,
    ) -> Result<Answer, Failure> {
        // Over before the caller has given up, who would not learn why.
        let end = end.minus(limits.budget / 8);
        let mut pause = Duration::from_millis(10);
        while end.left() > pause {
            // Not all who wait at the same moments.
            clock::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(Duration::from_millis(250));
            if self.current.live().is_none()
                && let Err(failure) = self.connected(end).await
            {
                if !failure.error.is_temporary() {
                    return Err(Failure { error: failure.error, ..last });
                }
                continue;
            }
            let before = std::mem::take(&mut last.unanswered);
            match self.ask_once(limits, end, make).await {
                Ok(mut answer) => {
                    answer.unanswered.extend(before);
                    return Ok(answer);
                }
                // What was said before tells more than that there was no time left for an answer.
                Err(failure) if end.passed() => last.unanswered = failure.unanswered,
                Err(failure) => last = failure,
            }
            last.unanswered.extend(before);
            if !last.elsewhere {
                break;
            }
        }
        Err(last)
    }

    async fn ask_once(
        self: &Arc<Self>,
        limits: Limits,
        end: Instant,
        make: &(impl Fn(&Conn, &Sent, bool) -> Cmd + Sync),
    ) -> Result<Answer, Failure> {
        let conn = match self.current.live() {
            Some(conn) => conn,
            // In a box, like all that is rare: every call would have to make room for it.
            None => Box::pin(self.connected(end)).await?,
        };
        let under_way = Mutex::new(Vec::new());
        let mut first = std::pin::pin!(exchange(conn.clone(), make, &under_way));
        let answered = tokio::select! {
            biased;
            answered = &mut first => Some(answered),
            () = clock::sleep(limits.patience.min(end.left())) => None,
        };
        let answered = match answered {
            None if limits.budget <= limits.patience => {
                self.probe();
                None
            }
            // Silence: the server may be slow, or the connection dead. Whichever answers first is right.
            None => {
                let other = Box::pin(async {
                    let fresh = self.conn(Some(conn.number)).await.ok()?;
                    let answered = exchange(fresh, make, &under_way).await;
                    conn.dead.store(true, Ordering::Release);
                    Some(answered)
                });
                tokio::select! {
                    biased;
                    answered = &mut first => Some(answered),
                    Some(answered) = other => Some(answered),
                    () = clock::sleep_until(end) => None,
                }
            }
            answered => answered,
        };
        let mut unanswered = std::mem::take(&mut *lock(&under_way));
        let Some(Exchanged { value, conn, sent }) = answered else {
            return Err(Failure { error: self.silent("no answer came in time"), unanswered, elsewhere: false });
        };
        unanswered.retain(|other: &Sent| other.at != sent.at || other.conn != sent.conn);
        match value {
            Ok(value) => {
                if self.left.load(Ordering::Relaxed) != 0 {
                    self.left.store(0, Ordering::Relaxed);
                }
                Ok(Answer { value, conn, sent, unanswered })
            }
            Err(error) => {
                let (error, outcome) = of_request(&error, &self.address.to_string());
                match outcome {
                    Outcome::NotApplied => {}
                    Outcome::InDoubt => {
                        self.lost(&conn);
                        unanswered.push(sent);
                    }
                    Outcome::TryElsewhere => self.leave(&conn),
                }
                Err(Failure { error, unanswered, elsewhere: outcome == Outcome::TryElsewhere })
            }
        }
    }

    fn silent(&self, what: &str) -> Error {
        Error::unavailable(format!(
            "Redis at {}: {what}; is it overloaded or stopped, or the network cut{}?",
            self.address,
            self.address.hint()
        ))
    }

    /// Finds out whether a connection that didn't answer in a short time is alive, and replaces it if not.
    fn probe(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let link = self.clone();
        runtime::spawn(async move {
            let budget = link.config.connect_timeout();
            // Shorter than the budget, or it would never ask on another connection.
            let limits = Limits { patience: PATIENCE.min(budget / 2), budget };
            let _ = link.ask(limits, |_, _, _| redis::cmd("PING")).await;
            link.probing.store(false, Ordering::Release);
        });
    }

    async fn connected(self: &Arc<Self>, end: Instant) -> Result<Arc<Conn>, Failure> {
        tokio::select! {
            biased;
            conn = self.conn(None) => conn.map_err(Failure::refused),
            () = clock::sleep_until(end) => Err(Failure::refused(self.silent("no connection was made in time"))),
        }
    }

    /// The connection there is, or one made now; `other`: another than the one of this number.
    pub(super) async fn conn(self: &Arc<Self>, other: Option<u64>) -> Result<Arc<Conn>> {
        let make = |number| {
            let link = self.clone();
            async move {
                let made = super::connection::connect(&link, number).await;
                // Whoever waits asks again: messages may have been missed.
                link.inbox.notify_all();
                made
            }
        };
        let made = self.current.get(other, make).await;
        made.unwrap_or_else(|| Err(self.silent("connecting was given up")))
    }

    /// Leaves a connection whose server doesn't do what it is asked. Not one that was made just now: all who ask would
    /// make connections one after another.
    fn leave(&self, conn: &Conn) {
        let left = self.left.load(Ordering::Relaxed);
        let kept = TRIED * 2_u32.pow(left.min(TRIED_DOUBLED));
        if conn.made.plus(kept).passed() && !conn.dead.swap(true, Ordering::AcqRel) {
            self.left.store(left.saturating_add(1), Ordering::Relaxed);
            self.gone(conn.number);
        }
    }

    /// This connection is gone.
    pub(super) fn lost(&self, conn: &Conn) {
        conn.dead.store(true, Ordering::Release);
        self.gone(conn.number);
    }

    /// The connection of this number is gone; whoever waits asks again.
    pub(super) fn gone(&self, number: u64) {
        if self.current.forget(number) {
            self.inbox.notify_all();
        }
    }
}

/// One sending and what came of it.
struct Exchanged {
    value: Result<Value, RedisError>,
    conn: Arc<Conn>,
    sent: Sent,
}

/// Sends it, and again in full where the server doesn't know the script.
async fn exchange(
    conn: Arc<Conn>,
    make: &(impl Fn(&Conn, &Sent, bool) -> Cmd + Sync),
    under_way: &Mutex<Vec<Sent>>,
) -> Exchanged {
    let mut mux = conn.mux.clone();
    let mut full = false;
    loop {
        let at = Instant::now();
        let server_ms = ms(at) + conn.offset.load(Ordering::Acquire);
        let sent = Sent { at, server_ms, conn: conn.number, messages: conn.messages };
        let cmd = make(&conn, &sent, full);
        lock(under_way).push(sent);
        let value = mux.send_packed_command(&cmd).await.and_then(Value::extract_error);
        if !full && value.as_ref().is_err_and(no_script) {
            lock(under_way).retain(|other| other.at != at || other.conn != conn.number);
            full = true;
            continue;
        }
        return Exchanged { value, conn, sent };
    }
}

impl Conn {
    /// Takes in what the server's clock shows now.
    pub(super) fn set_clock(&self, server_ms: i64) {
        self.offset.store(server_ms - ms(Instant::now()), Ordering::Release);
    }
}

fn ms(at: Instant) -> i64 {
    i64::try_from(at.nanos() / 1_000_000).unwrap_or(i64::MAX / 2)
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
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
        write!(f, "Link({})", self.address)
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({})", self.number)
    }
}

/// For what a connection tells of itself: it must not keep the link alive.
pub(super) type WeakLink = Weak<Link>;
