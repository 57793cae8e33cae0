//! Requests to Redis: sent on the link's connection, on a second one after a silence, and again after a failover.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Cmd, RedisError, Value};

use super::connection::{Conn, Link};
use super::error::{no_script, of_request};
use super::script::Script;
use crate::clock::{self, Instant};
use crate::net::failure::{Failure, Outcome};
use crate::net::request::{self, Limits};
use crate::runtime::{self, lock};
use crate::timing::{Backoff, PATIENCE};

/// The shortest life of a connection whose server can't serve. It is doubled up to `TRIED_DOUBLED` times while the next
/// server can't serve either, as during the minutes in which a server loads its data.
const TRIED: Duration = Duration::from_millis(100);
const TRIED_DOUBLED: u32 = 3;

/// A sending of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    /// The server's clock at the sending, in milliseconds.
    pub(super) server_ms: i64,
    /// The number of the connection.
    pub(super) conn: u64,
    /// True if messages arrive on the connection.
    pub(super) messages: bool,
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) conn: Arc<Conn>,
    /// The sending that was answered.
    pub(super) sent: Sent,
    /// The sendings that were not answered and may still be applied.
    pub(super) unanswered: Vec<Sent>,
}

/// A request that failed.
pub(super) type Refusal = request::Refusal<Sent>;

impl Link {
    /// Runs a script. `args` adds keys and arguments at each sending: a request without an answer is sent again on
    /// another connection, which every script allows.
    pub(super) async fn run(
        self: &Arc<Self>,
        script: Script,
        limits: Limits,
        args: impl Fn(&Sent, &mut Cmd) + Sync,
    ) -> Result<Answer, Refusal> {
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

    /// Sends the command that `make` returns. Sends it again on another connection if there is no answer for the
    /// patience, or if this server can't serve now: after a failover the name may lead to another server.
    pub(super) async fn ask(
        self: &Arc<Self>,
        limits: Limits,
        make: impl Fn(&Conn, &Sent, bool) -> Cmd + Sync,
    ) -> Result<Answer, Refusal> {
        let end = Instant::now().plus(limits.budget);
        match self.ask_once(limits, end, &make).await {
            Err(refusal) if refusal.failure.outcome == Outcome::TryElsewhere => {
                Box::pin(self.ask_elsewhere(limits, end, &make, refusal)).await
            }
            other => other,
        }
    }

    /// Asks the server that the address leads to now, again and again until the time is over.
    async fn ask_elsewhere(
        self: &Arc<Self>,
        limits: Limits,
        end: Instant,
        make: &(impl Fn(&Conn, &Sent, bool) -> Cmd + Sync),
        mut last: Refusal,
    ) -> Result<Answer, Refusal> {
        // It ends before the caller gives up, so that the caller gets the reason.
        let end = end.minus(limits.budget / 8);
        let mut pauses = Backoff::polls();
        loop {
            let pause = pauses.next();
            // As much time is left for the answer, or else it would be in doubt.
            if end.left() <= pause * 2 {
                break;
            }
            clock::sleep(pause).await;
            if !self.is_connected()
                && let Err(failure) = self.connected(end).await
            {
                if !failure.error.is_temporary() {
                    last.failure.error = failure.error;
                    return Err(last);
                }
                continue;
            }
            let before = std::mem::take(&mut last.unanswered);
            match self.ask_once(limits, end, make).await {
                Ok(mut answer) => {
                    answer.unanswered.extend(before);
                    return Ok(answer);
                }
                // The earlier error says more than "no time left".
                Err(refusal) if end.passed() => last.unanswered = refusal.unanswered,
                Err(refusal) => last = refusal,
            }
            last.unanswered.extend(before);
            if last.failure.outcome != Outcome::TryElsewhere {
                break;
            }
        }
        Err(last)
    }

    /// Asks the server that the connection leads to.
    async fn ask_once(
        self: &Arc<Self>,
        limits: Limits,
        end: Instant,
        make: &(impl Fn(&Conn, &Sent, bool) -> Cmd + Sync),
    ) -> Result<Answer, Refusal> {
        let conn = self.connected(end).await?;
        let sendings = Mutex::new(Vec::new());
        let hedged = self.hedged(conn, limits.patience, end, |conn| exchange(conn, make, &sendings)).await;
        match &hedged.answer {
            // A later connection answered first.
            Some(answered) => {
                let earlier = |conn: &&Arc<Conn>| conn.status.number() < answered.conn.status.number();
                hedged.unanswered.iter().filter(earlier).for_each(|conn| self.give_up(conn));
            }
            None if limits.budget <= limits.patience => self.probe(),
            None => {}
        }
        let mut unanswered = std::mem::take(&mut *lock(&sendings));
        let Some(Exchanged { value, conn, sent }) = hedged.answer else {
            return Err(Refusal { failure: Failure::in_doubt(self.silence("no answer came in time")), unanswered });
        };
        unanswered.retain(|other: &Sent| other.at != sent.at || other.conn != sent.conn);
        match value {
            Ok(value) => {
                let left = &self.shared.left;
                if left.load(Ordering::Relaxed) != 0 {
                    left.store(0, Ordering::Relaxed);
                }
                Ok(Answer { value, conn, sent, unanswered })
            }
            Err(error) => {
                let failure = of_request(&error, &self.names());
                match failure.outcome {
                    Outcome::InDoubt => {
                        self.give_up(&conn);
                        unanswered.push(sent);
                    }
                    Outcome::TryElsewhere => self.leave_server(&conn),
                    Outcome::NotApplied | Outcome::LeaseGone => {}
                }
                Err(Refusal { failure, unanswered })
            }
        }
    }

    /// Checks a connection that didn't answer in a short time, and replaces it if it is dead.
    fn probe(self: &Arc<Self>) {
        if self.shared.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let link = self.clone();
        runtime::spawn(async move {
            let budget = link.config.connect_timeout();
            // Shorter than the budget: otherwise it would never use another connection.
            let limits = Limits { patience: PATIENCE.min(budget / 2), budget };
            let _ = link.ask(limits, |_, _, _| redis::cmd("PING")).await;
            link.shared.probing.store(false, Ordering::Release);
        });
    }

    /// Gives up a connection whose server can't serve, but not one that was made just now: otherwise every request
    /// would make a connection.
    fn leave_server(&self, conn: &Conn) {
        let left = self.shared.left.load(Ordering::Relaxed);
        let kept = TRIED * 2_u32.pow(left.min(TRIED_DOUBLED));
        if conn.made.plus(kept).passed() && !conn.status.give_up() {
            self.shared.left.store(left.saturating_add(1), Ordering::Relaxed);
            self.forget(conn.status.number());
        }
    }
}

/// A sending and its answer.
struct Exchanged {
    value: Result<Value, RedisError>,
    conn: Arc<Conn>,
    sent: Sent,
}

/// Sends a command, and sends it again with the whole script if the server doesn't know the script.
async fn exchange(
    conn: Arc<Conn>,
    make: &(impl Fn(&Conn, &Sent, bool) -> Cmd + Sync),
    sendings: &Mutex<Vec<Sent>>,
) -> Exchanged {
    let mut mux = conn.mux.clone();
    let mut full = false;
    loop {
        let at = Instant::now();
        let sent = Sent { at, server_ms: conn.server_ms(at), conn: conn.status.number(), messages: conn.messages };
        let cmd = make(&conn, &sent, full);
        lock(sendings).push(sent);
        let value = mux.send_packed_command(&cmd).await.and_then(Value::extract_error);
        if !full && value.as_ref().is_err_and(no_script) {
            lock(sendings).retain(|other| other.at != at || other.conn != sent.conn);
            full = true;
            continue;
        }
        return Exchanged { value, conn, sent };
    }
}
