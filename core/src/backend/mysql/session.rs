//! A session: one connection, the locks that it holds, and the statements that wait for it.
//!
//! A task has the connection, and nobody else. It runs one statement after another, each to its end, whether the caller
//! still waits or not: a statement that is left half-way ends the connection. Tries, releases and checks that wait at the
//! same time share one statement.
//!
//! The server ends a session that sends nothing for `wait_timeout`, the ttl of its locks. That time doesn't run while a
//! statement does. So a session that holds a lock never runs one that can wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::{Row, Value};
use tokio::sync::{Notify, oneshot, watch};

use super::connection::{Conn, Rows, Server};
use super::error::{self, SERVICE};
use crate::clock::{self, Instant};
use crate::contract::{Context, Released};
use crate::error::Error;
use crate::net::failure::{Failure, Outcome};
use crate::net::request::answer_within;
use crate::runtime::{self, lock};
use crate::timing::{self, PATIENCE};

/// The most tries, releases and checks in one statement.
const TOGETHER: usize = 128;

/// The longest time between two statements of a session that holds a lock: the driver doesn't notice a connection that
/// was closed.
const PING: Duration = Duration::from_secs(1);

/// The longest wait that both servers take.
const LONGEST_WAIT: u64 = 31_536_000;

/// A fencing token: the time at which the server was started and a counter, with room for the tokens of a local hand-off.
/// It is read after the lock is granted.
const FENCE: &str = "(UUID_SHORT()&72057594037927935)<<5";

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Locks of `GET_LOCK`, which end with the session.
    Locks,
    /// Rows of the table of leases, which no session owns.
    Rows,
}

/// The first word of statements that are rolled back together when one of them fails.
pub(super) const TOGETHER_OR_NOT: &str = "START TRANSACTION";

/// The answer to a try or a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// Ours; `sent` is the time from which the ttl counts.
    Granted { sent: Instant, fence: u64 },
    /// Somebody else's, or nobody's: the wait ended without the lock.
    Busy,
}

type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// The answer to a wait, once there is one.
pub(super) type Waited = Option<Result<Tried, Failure>>;

/// A statement for the session, or a part of one.
enum Ask {
    /// Takes the lock if it is free.
    Try { name: Arc<str>, nonce: u64, answer: Answer<Tried> },
    /// Gives the lock back.
    Release { name: Arc<str>, nonce: u64, answer: Option<Answer<Released>> },
    /// Asks for an answer. Returns the time at which it was sent.
    Check { answer: Answer<Instant> },
    /// Waits for the lock for so many seconds at most.
    Wait { name: Arc<str>, nonce: u64, seconds: u64, answer: watch::Sender<Waited> },
    /// Runs these statements.
    Run { sql: String, answer: Answer<Vec<Rows>> },
}

impl Ask {
    fn fail(self, failure: Failure) {
        match self {
            Self::Try { answer, .. } => drop(answer.send(Err(failure))),
            Self::Wait { answer, .. } => drop(answer.send(Some(Err(failure)))),
            Self::Release { answer, .. } => drop(answer.map(|answer| answer.send(Err(failure)))),
            Self::Check { answer } => drop(answer.send(Err(failure))),
            Self::Run { answer, .. } => drop(answer.send(Err(failure))),
        }
    }

    /// Returns true if it can share a statement with others.
    fn shares(&self) -> bool {
        matches!(self, Self::Try { .. } | Self::Release { .. } | Self::Check { .. })
    }
}

/// A session. Dropping it ends it.
pub(super) struct Session {
    shared: Arc<Shared>,
    epoch: u32,
}

struct Shared {
    number: u64,
    id: u64,
    ttl: Duration,
    /// True if one claim has the session for itself. It is not kept alive.
    dedicated: bool,
    server: Arc<Server>,
    context: Context,
    state: Mutex<State>,
    more: Notify,
    /// Ends the statement that is under way, and the connection.
    abandoned: Notify,
    /// The time at which the last answered statement was sent, in nanoseconds.
    since: AtomicU64,
}

#[derive(Default)]
struct State {
    asks: VecDeque<Ask>,
    /// The locks that the session holds, or may hold, each with the claim's nonce.
    held: HashMap<Arc<str>, u64>,
    /// Those of them that nobody wants any more.
    leaving: HashSet<Arc<str>>,
    /// The time at which the statement under way was sent.
    asking: Option<Instant>,
    /// True from before the statement that waits until it is answered.
    waits: bool,
    /// The number of callers that have chosen the session and not asked yet.
    chosen: usize,
    closing: bool,
    /// True if the connection was given up here, and the server may not know it.
    given_up: bool,
    over: Option<Failure>,
}

impl State {
    fn is_silent(&self, ttl: Duration) -> bool {
        self.asking.is_some_and(|asked| asked.plus(timing::patience(ttl)).passed())
    }

    /// Notes that the session doesn't hold a lock.
    fn remove(&mut self, name: &str) {
        self.held.remove(name);
        self.leaving.remove(name);
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.asks.is_empty() && self.asking.is_none() && self.chosen == 0 && !self.waits
    }
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
        if conn.is_pooled && purpose == Purpose::Locks {
            return Err(Failure::not_applied(Error::refused(error::pooler(conn.name()))));
        }
        if conn.is_galera && purpose == Purpose::Locks {
            return Err(Failure::not_applied(Error::refused(error::galera(conn.name()))));
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
        let shared = Arc::new(Shared {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            id: conn.id,
            ttl: Duration::from_secs(seconds),
            dedicated,
            server: server.clone(),
            context: context.clone(),
            state: Mutex::default(),
            more: Notify::new(),
            abandoned: Notify::new(),
            since: AtomicU64::new(sent.nanos()),
        });
        runtime::spawn(serve(shared.clone(), conn));
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

    /// Returns the ttl of its locks.
    pub(super) fn ttl(&self) -> Duration {
        self.shared.ttl
    }

    /// Returns the time from which the ttl counts.
    pub(super) fn since(&self) -> Instant {
        self.shared.since()
    }

    pub(super) fn is_over(&self) -> bool {
        lock(&self.shared.state).over.is_some()
    }

    /// Chooses the session for a statement that doesn't wait, if it answers. `holds`: only if it holds a lock.
    pub(super) fn choose(self: &Arc<Self>, holds: bool) -> Option<Chosen> {
        let mut state = lock(&self.shared.state);
        let silent = state.is_silent(self.ttl());
        let stale = state.held.is_empty() && self.is_stale();
        if state.over.is_some() || state.waits || silent || stale || holds && state.held.is_empty() {
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
        let takes = state.over.is_none() && may_wait && !self.is_stale();
        state.waits |= takes;
        takes
    }

    /// Returns true if the server may have ended it.
    fn is_stale(&self) -> bool {
        self.since().plus(timing::session_limit(self.ttl())).passed()
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

    /// Notes that nobody wants this lock any more, which the session holds or may hold.
    pub(super) fn leave(&self, name: &Arc<str>) {
        lock(&self.shared.state).leaving.insert(name.clone());
    }

    /// Returns true if the connection was closed by the server or the network.
    pub(super) fn was_cut(&self) -> bool {
        let state = lock(&self.shared.state);
        state.over.is_some() && !state.given_up
    }

    /// Returns true if nobody wants any lock that the session holds or may hold.
    pub(super) fn is_left(&self) -> bool {
        let state = lock(&self.shared.state);
        state.held.keys().all(|name| state.leaving.contains(name))
    }

    /// Returns true if a statement has had no answer for longer than the patience of a request.
    pub(super) fn is_silent(&self) -> bool {
        lock(&self.shared.state).is_silent(self.ttl())
    }

    /// Returns true if a statement has no answer yet.
    pub(super) fn is_asking(&self) -> bool {
        lock(&self.shared.state).asking.is_some()
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
        self.leave(name);
        self.shared.push(Ask::Release { name: name.clone(), nonce, answer: Some(answer) });
        answered
    }

    /// Asks for an answer.
    pub(super) fn ask_check(&self) -> oneshot::Receiver<Result<Instant, Failure>> {
        let (answer, answered) = oneshot::channel();
        self.shared.push(Ask::Check { answer });
        answered
    }

    /// Waits for the lock. The session was [taken](Self::take) for that.
    pub(super) fn ask_wait(
        &self,
        name: &Arc<str>,
        nonce: u64,
        wait: Option<Duration>,
    ) -> watch::Receiver<Waited> {
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
        answered: oneshot::Receiver<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match answer_within(budget, answered).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(self.shared.over()),
            None => Err(Failure::in_doubt(self.shared.server.silence("no answer came in time"))),
        }
    }

    /// Closes the connection at once, also in the middle of a statement. The server frees what the session holds.
    pub(super) fn abandon(&self) {
        self.shared.abandoned.notify_one();
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

impl Shared {
    fn since(&self) -> Instant {
        Instant::from_nanos(self.since.load(Ordering::Acquire))
    }

    fn push(&self, ask: Ask) {
        let mut state = lock(&self.state);
        if let Some(over) = state.over.clone() {
            drop(state);
            return ask.fail(over);
        }
        state.asks.push_back(ask);
        drop(state);
        self.more.notify_one();
    }

    fn over(&self) -> Failure {
        let ended = || {
            let error = Error::unavailable(format!("the session at {SERVICE} {} has ended", self.server.name()));
            Failure { error, outcome: Outcome::LeaseGone }
        };
        lock(&self.state).over.clone().unwrap_or_else(ended)
    }

    /// Ends the session for all who use it.
    fn end(&self, why: Failure) {
        let failure = Failure { outcome: Outcome::LeaseGone, ..why };
        let asks = {
            let mut state = lock(&self.state);
            state.over.get_or_insert(failure.clone());
            (state.asking, state.waits) = (None, false);
            state.held.clear();
            state.leaving.clear();
            std::mem::take(&mut state.asks)
        };
        asks.into_iter().for_each(|ask| ask.fail(failure.clone()));
        self.context.suspect_session(self.number);
    }

    /// Notes an answer to a statement that was sent at this time.
    fn answered(&self, sent: Instant) {
        self.since.fetch_max(sent.nanos(), Ordering::AcqRel);
        lock(&self.state).asking = None;
    }
}

/// The work of a session's task.
enum Work {
    Together(Vec<Ask>),
    Alone(Ask),
    Close,
}

/// Runs the statements of a session until it ends.
async fn serve(shared: Arc<Shared>, mut conn: Conn) {
    loop {
        let work = next(&shared).await;
        let done = match work {
            Work::Close => break,
            Work::Together(asks) => together(&shared, &mut conn, asks).await,
            Work::Alone(ask) => alone(&shared, &mut conn, ask).await,
        };
        if let Err(why) = done {
            if mutant!("mysql-reconnects-under-a-lock")
                && let Ok(other) = shared.server.connect().await
            {
                conn = other;
                continue;
            }
            return shared.end(why);
        }
    }
    shared.end(shared.over());
    let _ = answer_within(PATIENCE, conn.quit()).await;
}

/// Waits for work, or for the time of the next ping.
async fn next(shared: &Shared) -> Work {
    loop {
        let more = shared.more.notified();
        let pause = {
            let mut state = lock(&shared.state);
            if state.asks.front().is_some_and(Ask::shares) {
                let many = state.asks.iter().take(TOGETHER).take_while(|ask| ask.shares()).count();
                return Work::Together(state.asks.drain(..many).collect());
            }
            if let Some(ask) = state.asks.pop_front() {
                return Work::Alone(ask);
            }
            let holds = !state.held.is_empty();
            let due = shared.since().plus(if holds { interval(shared.ttl) } else { timing::session_limit(shared.ttl) });
            match due.passed() {
                _ if state.closing => return Work::Close,
                true if state.is_idle() => return Work::Close,
                true if holds && !shared.dedicated => return Work::Together(Vec::new()),
                // It is not kept alive, or it is chosen and not asked yet.
                true => interval(shared.ttl),
                false => due.left(),
            }
        };
        tokio::select! {
            biased;
            () = more => {}
            () = shared.abandoned.notified() => return Work::Close,
            () = clock::sleep(pause) => {}
        }
    }
}

/// Returns the time from one statement to the next of a session that holds a lock.
fn interval(ttl: Duration) -> Duration {
    timing::renewal_interval(ttl).min(PING)
}

/// Runs a statement. `limit`: the time after which its connection is given up.
async fn run(shared: &Shared, conn: &mut Conn, sql: &str, limit: Duration) -> Result<Run, Failure> {
    let sent = Instant::now();
    lock(&shared.state).asking = Some(sent);
    let answered = tokio::select! {
        biased;
        answered = conn.try_run(sql) => answered,
        () = shared.abandoned.notified() => {
            lock(&shared.state).given_up = true;
            return Err(shared.over());
        }
        () = clock::sleep(limit) => {
            lock(&shared.state).given_up = true;
            return Err(Failure::in_doubt(shared.server.silence("no answer came in time")));
        }
    };
    match answered {
        Ok(rows) => {
            shared.answered(sent);
            Ok(Run { sent, answer: Ok(rows) })
        }
        Err(error) => {
            let failure = error::of(&error, conn.name());
            if error::ends_connection(&error) {
                return Err(failure);
            }
            shared.answered(sent);
            Ok(Run { sent, answer: Err(failure) })
        }
    }
}

/// The answer to a statement on a connection that lives.
struct Run {
    sent: Instant,
    answer: Result<Vec<Rows>, Failure>,
}

impl Run {
    /// Returns the only row, whose first column is the id of the session.
    fn row(&mut self, conn: &Conn) -> Result<Result<Row, Failure>, Failure> {
        match &mut self.answer {
            Err(failure) => Ok(Err(failure.clone())),
            Ok(all) => {
                let row = all.pop().and_then(|mut rows| rows.pop()).ok_or_else(|| conn.unreadable())?;
                if row.get::<u64, _>(0) != Some(conn.id) {
                    return Err(Failure::in_doubt(Error::refused(error::pooler(conn.name()))));
                }
                Ok(Ok(row))
            }
        }
    }
}

/// Runs tries, releases and checks in one statement. None: a ping.
async fn together(shared: &Shared, conn: &mut Conn, asks: Vec<Ask>) -> Result<(), Failure> {
    let asks = {
        let mut state = lock(&shared.state);
        asks.into_iter().filter_map(|ask| prepared(&mut state, ask)).collect::<Vec<_>>()
    };
    let mut run = run(shared, conn, &sql_of(&asks), shared.ttl).await?;
    match run.row(conn)? {
        Ok(row) => {
            share(shared, &row, run.sent, asks);
            Ok(())
        }
        Err(failure) if asks.len() <= 1 => {
            asks.into_iter().for_each(|ask| refuse(shared, ask, failure.clone()));
            Ok(())
        }
        // One of them failed, and any of those before it may have been done. Each of them can be asked again.
        Err(_) => {
            for ask in asks {
                let mut run = self::run(shared, conn, &sql_of(std::slice::from_ref(&ask)), shared.ttl).await?;
                match run.row(conn)? {
                    Ok(row) => share(shared, &row, run.sent, vec![ask]),
                    Err(failure) => refuse(shared, ask, failure),
                }
            }
            Ok(())
        }
    }
}

/// Notes what an ask may change, or answers it if nothing is to be asked.
fn prepared(state: &mut State, ask: Ask) -> Option<Ask> {
    match &ask {
        // GET_LOCK is re-entrant, so a lock that this session holds is not asked for.
        Ask::Try { name, nonce, .. } if !state.held.contains_key(name) => {
            state.held.insert(name.clone(), *nonce);
            Some(ask)
        }
        Ask::Release { name, nonce, .. } if state.held.get(name) == Some(nonce) => Some(ask),
        Ask::Check { .. } => Some(ask),
        _ => {
            match ask {
                Ask::Try { answer, .. } => drop(answer.send(Ok(Tried::Busy))),
                Ask::Release { answer, .. } => drop(answer.map(|answer| answer.send(Ok(Released::NotOurs)))),
                _ => {}
            }
            None
        }
    }
}

fn sql_of(asks: &[Ask]) -> String {
    let mut sql = String::from("SELECT CONNECTION_ID()");
    for ask in asks {
        match ask {
            // It may be asked again after a statement that failed.
            Ask::Try { name, .. } => {
                sql += &format!(",IF(IS_USED_LOCK('{name}')=CONNECTION_ID(),1,GET_LOCK('{name}',0)),{FENCE}");
            }
            Ask::Release { name, .. } => sql += &format!(",RELEASE_LOCK('{name}')"),
            _ => {}
        }
    }
    sql
}

/// Gives each ask its columns.
fn share(shared: &Shared, row: &Row, sent: Instant, asks: Vec<Ask>) {
    let mut at = 1;
    let mut column = || {
        at += 1;
        row.as_ref(at - 1)
    };
    for ask in asks {
        match ask {
            Ask::Try { name, nonce, answer } => {
                let (got, fence) = (number(column()), number(column()));
                let fence = fence.filter(|_| got == Some(1));
                tried(shared, &name, nonce, sent, fence, |tried| answer.send(Ok(tried)).is_ok());
            }
            Ask::Release { name, answer, .. } => {
                let was_ours = number(column()) == Some(1);
                lock(&shared.state).remove(&name);
                let released = if was_ours { Released::Yes } else { Released::NotOurs };
                drop(answer.map(|answer| answer.send(Ok(released))));
            }
            Ask::Check { answer } => drop(answer.send(Ok(sent))),
            Ask::Wait { .. } | Ask::Run { .. } => {}
        }
    }
}

/// Answers a try or a wait by this function, which returns false if nobody waits for the answer any more. Then the lock is
/// given back. `fence`: if it was granted.
fn tried(
    shared: &Shared,
    name: &Arc<str>,
    nonce: u64,
    sent: Instant,
    fence: Option<u64>,
    tell: impl FnOnce(Tried) -> bool,
) {
    let Some(fence) = fence else {
        lock(&shared.state).remove(name);
        tell(Tried::Busy);
        return;
    };
    if !tell(Tried::Granted { sent, fence }) {
        shared.push(Ask::Release { name: name.clone(), nonce, answer: None });
    }
}

/// Answers an ask that failed by itself. A try that failed may have the lock all the same.
fn refuse(shared: &Shared, ask: Ask, failure: Failure) {
    if let Ask::Try { name, nonce, .. } = &ask {
        shared.push(Ask::Release { name: name.clone(), nonce: *nonce, answer: None });
    }
    ask.fail(failure);
}

fn number(value: Option<&Value>) -> Option<u64> {
    mysql_async::from_value_opt(value?.clone()).ok()
}

/// Runs what can't share a statement.
async fn alone(shared: &Shared, conn: &mut Conn, ask: Ask) -> Result<(), Failure> {
    match ask {
        Ask::Wait { name, nonce, seconds, answer } => wait(shared, conn, name, nonce, seconds, answer).await,
        Ask::Run { sql, answer } => {
            let asked = run(shared, conn, &sql, shared.ttl).await?;
            if asked.answer.is_err() && sql.starts_with(TOGETHER_OR_NOT) {
                run(shared, conn, "ROLLBACK", shared.ttl).await?;
            }
            drop(answer.send(asked.answer));
            Ok(())
        }
        ask => {
            ask.fail(conn.unreadable());
            Ok(())
        }
    }
}

/// Waits for a lock.
async fn wait(
    shared: &Shared,
    conn: &mut Conn,
    name: Arc<str>,
    nonce: u64,
    seconds: u64,
    answer: watch::Sender<Waited>,
) -> Result<(), Failure> {
    if answer.is_closed() {
        lock(&shared.state).waits = false;
        return Ok(());
    }
    lock(&shared.state).held.insert(name.clone(), nonce);
    let sql = format!("SELECT CONNECTION_ID(),GET_LOCK('{name}',{seconds}),{FENCE}");
    let limit = Duration::from_secs(seconds) + shared.ttl;
    let mut run = run(shared, conn, &sql, limit).await?;
    let mut got = match run.row(conn)? {
        Ok(row) => (number(row.as_ref(1)), number(row.as_ref(2))),
        // A statement that was killed or timed out. MariaDB says NULL.
        Err(_) => (None, None),
    };
    if got.0.is_none() {
        let sql = format!("SELECT CONNECTION_ID(),IS_USED_LOCK('{name}')=CONNECTION_ID(),{FENCE}");
        run = self::run(shared, conn, &sql, shared.ttl).await?;
        if let Ok(row) = run.row(conn)? {
            got = (number(row.as_ref(1)), number(row.as_ref(2)));
        }
    }
    let (granted, fence) = got;
    lock(&shared.state).waits = false;
    let fence = fence.filter(|_| granted == Some(1));
    tried(shared, &name, nonce, run.sent, fence, |tried| answer.send(Some(Ok(tried))).is_ok());
    Ok(())
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {:?})", self.shared.id, self.shared.ttl)
    }
}
