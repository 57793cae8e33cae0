//! The one connection of a client: made when it is needed, replaced when it is silent, asked by scripts.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use tokio::sync::watch;

use super::error::{Failure, no_script, of_request};
use super::post::Post;
use super::script::{COUNT, Script};
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::net::Address;
use crate::runtime;

/// How long a request may be without an answer before it is asked on another connection as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A client's connection, as there is one.
pub(super) struct Link {
    pub(super) address: Address,
    pub(super) config: Config,
    pub(super) post: Arc<Post>,
    state: Mutex<State>,
    next: AtomicU64,
    probing: AtomicBool,
}

enum State {
    Idle,
    Connecting(watch::Receiver<Option<Result<Arc<Conn>>>>),
    Live(Arc<Conn>),
}

/// One connection to the server. Closed when nobody waits for an answer on it any more.
pub(super) struct Conn {
    pub(super) number: u64,
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

/// What a request was answered with.
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) conn: Arc<Conn>,
    /// Which of the sendings was answered, from 0.
    pub(super) which: usize,
    /// How often it was sent.
    pub(super) sent: usize,
}

/// How long a request is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) patience: Duration,
    pub(super) budget: Duration,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(super) fn new(address: Address, config: Config, post: Arc<Post>) -> Self {
        let (state, next, probing) = (Mutex::new(State::Idle), AtomicU64::new(1), AtomicBool::new(false));
        Self { address, config, post, state, next, probing }
    }

    /// Runs a script. `args` is asked for the keys and arguments each time it is sent: a request without an answer is
    /// sent again on another connection, which every script allows.
    pub(super) async fn run(
        self: &Arc<Self>,
        script: Script,
        limits: Limits,
        mut args: impl FnMut(&Conn, &mut Cmd) + Send,
    ) -> Result<Answer, Failure> {
        self.ask(limits, |conn, full| {
            let mut cmd = match &conn.hashes[script as usize] {
                Some(hash) if !full => {
                    let mut cmd = Cmd::with_capacity(20, 768);
                    cmd.arg("EVALSHA").arg(hash);
                    cmd
                }
                _ => {
                    let mut cmd = Cmd::new();
                    cmd.arg("EVAL").arg(script.text());
                    cmd
                }
            };
            args(conn, &mut cmd);
            cmd
        })
        .await
    }

    /// Sends what `make` makes, again in full where the server doesn't know the script, and again on another
    /// connection after the patience.
    pub(super) async fn ask(
        self: &Arc<Self>,
        limits: Limits,
        mut make: impl FnMut(&Conn, bool) -> Cmd + Send,
    ) -> Result<Answer, Failure> {
        let end = Instant::now().plus(limits.budget);
        let conn = tokio::select! {
            biased;
            conn = self.conn(None) => conn.map_err(Failure::refused)?,
            () = clock::sleep_until(end) => return Err(Failure::refused(self.silent("no connection was made in time"))),
        };
        let first = make(&conn, false);
        let mut first = std::pin::pin!(exchange(conn.mux.clone(), first));
        let mut answered = tokio::select! {
            biased;
            answer = &mut first => Some(answer),
            () = clock::sleep(limits.patience.min(limits.budget)) => None,
        };
        if let Some(Err(error)) = &answered
            && no_script(error)
        {
            let full = make(&conn, true);
            answered = tokio::select! {
                biased;
                answer = exchange(conn.mux.clone(), full) => Some(answer),
                () = clock::sleep_until(end) => None,
            };
            return self.settled(answered, conn, 1, 2);
        }
        if answered.is_some() || limits.budget <= limits.patience {
            if answered.is_none() {
                self.probe();
            }
            return self.settled(answered, conn, 0, 1);
        }
        // Silence: the server may be slow, or the connection dead. Whichever answers first is right.
        let mut sent = 1;
        let other = async {
            let fresh = self.conn(Some(conn.number)).await.ok()?;
            let again = make(&fresh, false);
            sent = 2;
            let mut answer = exchange(fresh.mux.clone(), again).await;
            if answer.as_ref().is_err_and(no_script) {
                let full = make(&fresh, true);
                sent = 3;
                answer = exchange(fresh.mux.clone(), full).await;
            }
            Some((answer, fresh))
        };
        let mut other = Box::pin(other);
        let (answer, conn, of_other) = tokio::select! {
            biased;
            answer = &mut first => (Some(answer), conn.clone(), false),
            answer = &mut other => match answer {
                Some((answer, fresh)) => {
                    conn.dead.store(true, Ordering::Release);
                    (Some(answer), fresh, true)
                }
                // No other connection either.
                None => tokio::select! {
                    biased;
                    answer = &mut first => (Some(answer), conn.clone(), false),
                    () = clock::sleep_until(end) => (None, conn.clone(), false),
                },
            },
            () = clock::sleep_until(end) => (None, conn.clone(), false),
        };
        drop(other);
        self.settled(answer, conn, if of_other { sent - 1 } else { 0 }, sent)
    }

    fn settled(
        &self,
        answer: Option<Result<Value, RedisError>>,
        conn: Arc<Conn>,
        which: usize,
        sent: usize,
    ) -> Result<Answer, Failure> {
        match answer {
            Some(Ok(value)) => Ok(Answer { value, conn, which, sent }),
            Some(Err(error)) => {
                let mut failure = of_request(&error, &self.address.to_string());
                if failure.unknown {
                    self.lost(&conn);
                }
                failure.unknown |= sent > 1 && which > 0;
                Err(failure)
            }
            None => Err(Failure::unknown(self.silent("no answer came in time"))),
        }
    }

    fn silent(&self, what: &str) -> Error {
        Error::unavailable(format!(
            "Redis at {}: {what}; is it overloaded or stopped, or the network cut?",
            self.address
        ))
    }

    /// Finds out whether a connection that didn't answer in a short time is alive, and replaces it if not.
    fn probe(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let link = self.clone();
        runtime::spawn(async move {
            let limits = Limits { patience: PATIENCE, budget: link.config.connect_timeout() };
            let _ = link.ask(limits, |_, _| redis::cmd("PING")).await;
            link.probing.store(false, Ordering::Release);
        });
    }

    /// The connection there is, or one made now; `other`: another than the one of this number. It is made once for all
    /// who ask, and made whole also when they don't wait for it.
    pub(super) async fn conn(self: &Arc<Self>, other: Option<u64>) -> Result<Arc<Conn>> {
        let mut made = {
            let mut state = locked(&self.state);
            match &*state {
                State::Live(conn) if !conn.dead.load(Ordering::Acquire) && other != Some(conn.number) => {
                    return Ok(conn.clone());
                }
                State::Connecting(made) => made.clone(),
                _ => {
                    let (tell, made) = watch::channel(None);
                    *state = State::Connecting(made.clone());
                    let link = self.clone();
                    let number = self.next.fetch_add(1, Ordering::Relaxed);
                    runtime::spawn(async move {
                        let result = super::connect::connect(&link, number).await;
                        *locked(&link.state) = match &result {
                            Ok(conn) => State::Live(conn.clone()),
                            Err(_) => State::Idle,
                        };
                        let _ = tell.send(Some(result));
                        // Whoever waits asks again: messages may have been missed.
                        link.post.ring_all();
                    });
                    made
                }
            }
        };
        let made = made.wait_for(Option::is_some).await.ok().and_then(|made| made.clone());
        made.unwrap_or_else(|| Err(self.silent("connecting was given up")))
    }

    /// This connection is gone.
    pub(super) fn lost(&self, conn: &Conn) {
        conn.dead.store(true, Ordering::Release);
        self.gone(conn.number);
    }

    /// The connection of this number is gone; whoever waits asks again.
    pub(super) fn gone(&self, number: u64) {
        let mut state = locked(&self.state);
        if let State::Live(live) = &*state
            && live.number == number
        {
            *state = State::Idle;
            drop(state);
            self.post.ring_all();
        }
    }
}

async fn exchange(mut mux: MultiplexedConnection, cmd: Cmd) -> Result<Value, RedisError> {
    mux.send_packed_command(&cmd).await.and_then(Value::extract_error)
}

impl Conn {
    /// What the server's clock shows at a time of ours, in milliseconds.
    pub(super) fn server_ms(&self, at: Instant) -> i64 {
        ms(at) + self.offset.load(Ordering::Acquire)
    }

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
