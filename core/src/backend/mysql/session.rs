//! A session: one connection, the locks that it holds, and the statements that wait for it.
//!
//! A task has the connection, and nobody else, see `statements`. The server ends a session that sends nothing for
//! `wait_timeout`, the ttl of its locks. That time doesn't run while a statement does. So a session that holds a lock never
//! runs one that can wait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use super::asks::{Ask, Shared, Tried, Waited};
use super::connection::{Rows, Server};
use super::error::{self, SERVICE};
use super::statements;
use crate::clock::Instant;
use crate::contract::{Context, Released};
use crate::error::Error;
use crate::net::failure::Failure;
use crate::net::request::answer_within;
use crate::runtime::{self, lock};
use crate::timing;

/// The longest wait that both servers take.
const LONGEST_WAIT: u64 = 31_536_000;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Locks of `GET_LOCK`, which end with the session.
    Locks,
    /// Rows of the table of leases, which no session owns.
    Rows,
}

/// A session. Dropping it ends it.
pub(super) struct Session {
    shared: Arc<Shared>,
    epoch: u32,
}

/// The choice of a session, until its caller has asked.
pub(super) struct Chosen(Arc<Session>);

impl Chosen {
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.0
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        lock(&self.0.shared.state).chosen -= 1;
    }
}

impl Session {
    /// Begins a session for locks of this ttl.
    pub(super) async fn begin(
        server: &Arc<Server>,
        context: &Context,
        purpose: Purpose,
        seconds: u64,
        dedicated: bool,
    ) -> Result<Arc<Self>, Failure> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let mut conn = server.connect().await.map_err(Failure::not_applied)?;
        for (is_so, refusal) in [
            (conn.is_pooled, error::pooler as fn(&str) -> String),
            (conn.is_galera, error::galera),
            (conn.has_several_primaries, error::several_primaries),
        ] {
            if is_so && purpose == Purpose::Locks {
                return Err(Failure::not_applied(Error::refused(refusal(conn.name()))));
            }
        }
        // Some servers limit the time of a statement, a wait among them.
        let limit = if conn.is_mariadb { "max_statement_time" } else { "max_execution_time" };
        let wait_timeout = if mutant!("mysql-no-wait-timeout") { 28_800 } else { seconds };
        let more = match purpose {
            Purpose::Locks => "",
            // In another time zone, an hour of the clock may come twice.
            Purpose::Rows => ", autocommit=1, time_zone='+00:00'",
        };
        let sql = format!("SET SESSION wait_timeout={wait_timeout}, {limit}=0{more}; SELECT @@SESSION.wait_timeout");
        let sent = Instant::now();
        let kept = conn.run(&sql).await?.pop().and_then(|mut rows| rows.pop()?.take::<u64, _>(0));
        if kept != Some(wait_timeout) && purpose == Purpose::Locks {
            return Err(Failure::not_applied(Error::refused(format!(
                "{SERVICE} at {} has a wait_timeout of {kept:?} s where {wait_timeout} s were set: use a ttl that it takes",
                conn.name()
            ))));
        }
        if conn.is_read_only && purpose == Purpose::Locks && server.warns_of_read_only() {
            context.warn(&format!(
                "{SERVICE} at {} is read-only: its locks exclude nobody at the server that takes writes, if it is the replica of \
                 one",
                conn.name()
            ));
        }
        let shared = Arc::new(Shared {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            id: conn.id,
            place: conn.place.clone(),
            ttl: Duration::from_secs(seconds),
            dedicated,
            server: server.clone(),
            context: context.clone(),
            state: Mutex::default(),
            more: Notify::new(),
            given_up: Notify::new(),
            since: AtomicU64::new(sent.nanos()),
            heard: AtomicU64::new(sent.nanos()),
        });
        runtime::spawn(statements::serve(shared.clone(), conn));
        Ok(Arc::new(Self { shared, epoch: runtime::epoch() }))
    }

    /// Returns its number among the sessions of this process.
    pub(super) fn number(&self) -> u64 {
        self.shared.number
    }

    /// Returns its id at the server.
    pub(super) fn id(&self) -> u64 {
        self.shared.id
    }

    /// Returns the server that the session is at: another text for another server, and for the same one started again.
    pub(super) fn place(&self) -> &str {
        &self.shared.place
    }

    /// Returns the ttl of its locks.
    pub(super) fn ttl(&self) -> Duration {
        self.shared.ttl
    }

    pub(super) fn is_over(&self) -> bool {
        lock(&self.shared.state).over.is_some()
    }

    /// Chooses the session for a statement that doesn't wait, if it answers. `holds`: only if it holds a lock, or only if
    /// it doesn't.
    pub(super) fn choose(self: &Arc<Self>, holds: bool) -> Option<Chosen> {
        let mut state = lock(&self.shared.state);
        let silent = state.is_silent(self.ttl());
        let stale = state.held.is_empty() && self.is_stale();
        if state.over.is_some() || state.given_up || state.waits || silent || stale || holds == state.held.is_empty() {
            return None;
        }
        state.chosen += 1;
        drop(state);
        Some(Chosen(self.clone()))
    }

    /// Takes the session for a statement that waits, if it has nothing else to do.
    pub(super) fn take(&self) -> bool {
        let mut state = lock(&self.shared.state);
        let may_wait = state.is_idle() || mutant!("mysql-holder-waits") && !state.waits;
        let takes = state.over.is_none() && !state.given_up && may_wait && !self.is_stale();
        state.waits |= takes;
        takes
    }

    /// Returns true if the server may have ended it.
    fn is_stale(&self) -> bool {
        self.shared.since().plus(timing::session_limit(self.ttl())).passed()
    }

    /// Returns the number of statements that are asked, or about to be.
    pub(super) fn load(&self) -> usize {
        let state = lock(&self.shared.state);
        state.asks.len() + state.chosen + usize::from(state.asking.is_some())
    }

    /// Returns true if nothing is held, asked or waited for.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.shared.state).is_idle()
    }

    /// Returns true if a statement has had no answer for longer than the patience of a request.
    pub(super) fn is_silent(&self) -> bool {
        lock(&self.shared.state).is_silent(self.ttl())
    }

    /// Notes that a claim has no more use for this lock, which the session holds or may hold.
    pub(super) fn leave(&self, name: &str, nonce: u64) {
        lock(&self.shared.state).leave(name, nonce);
    }

    /// Returns true if the connection was closed by the server or the network.
    pub(super) fn was_cut(&self) -> bool {
        let state = lock(&self.shared.state);
        state.over.is_some() && !state.given_up
    }

    /// Returns true if the session holds, or may hold, this lock for this claim.
    pub(super) fn holds(&self, name: &str, nonce: u64) -> bool {
        lock(&self.shared.state).holds(name, nonce)
    }

    /// Gives up the connection, also in the middle of a statement, if nobody else has a use for the session: the server
    /// frees what it holds. Returns false if somebody has.
    pub(super) fn give_up(&self) -> bool {
        let mut state = lock(&self.shared.state);
        if state.over.is_none() {
            if !state.waits && !state.is_left() {
                return false;
            }
            state.given_up = true;
        }
        drop(state);
        self.shared.given_up.notify_one();
        true
    }

    /// Gives up the connection as [`give_up`](Self::give_up), if a statement has had no answer for longer than the patience
    /// of a request.
    pub(super) fn give_up_silent(&self) -> bool {
        let is_silent = lock(&self.shared.state).is_silent(self.ttl());
        is_silent && self.give_up()
    }

    /// Takes the lock if it is free.
    pub(super) fn ask_try(&self, name: &Arc<str>, nonce: u64) -> oneshot::Receiver<Result<Tried, Failure>> {
        let (answer, answered) = oneshot::channel();
        self.shared.push(Ask::Try { name: name.clone(), nonce, answer });
        answered
    }

    /// Gives the lock back.
    pub(super) fn ask_release(&self, name: &Arc<str>, nonce: u64) -> oneshot::Receiver<Result<Released, Failure>> {
        let (answer, answered) = oneshot::channel();
        self.leave(name, nonce);
        self.shared.push(Ask::Release { name: name.clone(), nonce, answer: Some(answer) });
        answered
    }

    /// Gives the lock back that a try may have taken, or may still take.
    pub(super) fn take_back(&self, name: &Arc<str>, nonce: u64) {
        self.leave(name, nonce);
        self.shared.push(Ask::Release { name: name.clone(), nonce, answer: None });
    }

    /// Asks for an answer.
    pub(super) fn ask_check(&self) -> oneshot::Receiver<Result<Instant, Failure>> {
        let (answer, answered) = oneshot::channel();
        self.shared.push(Ask::Check { answer });
        answered
    }

    /// Waits for the lock. The session was [taken](Self::take) for that.
    pub(super) fn ask_wait(&self, name: &Arc<str>, nonce: u64, wait: Option<Duration>) -> watch::Receiver<Waited> {
        let (answer, answered) = watch::channel(None);
        let seconds = wait.map_or(LONGEST_WAIT, |wait| (wait.as_secs() + 1).min(LONGEST_WAIT));
        self.shared.push(Ask::Wait { name: name.clone(), nonce, seconds, answer });
        answered
    }

    /// Runs statements, and returns the rows of each.
    pub(super) async fn run(&self, sql: String, budget: Duration) -> Result<Vec<Rows>, Failure> {
        let (answer, answered) = oneshot::channel();
        self.shared.push(Ask::Run { sql, answer });
        self.answer_within(budget, answered).await
    }

    /// Waits for an answer for this long.
    pub(super) async fn answer_within<T>(
        &self,
        budget: Duration,
        mut answered: oneshot::Receiver<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let silent = || Err(Failure::in_doubt(self.shared.server.silence("no answer came in time")));
        match answer_within(budget, &mut answered).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(self.shared.over()),
            None => {
                // It may have come in this moment.
                answered.close();
                answered.try_recv().unwrap_or_else(|_| silent())
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.epoch == runtime::epoch() {
            lock(&self.shared.state).closing = true;
            self.shared.more.notify_one();
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {:?})", self.shared.id, self.shared.ttl)
    }
}
