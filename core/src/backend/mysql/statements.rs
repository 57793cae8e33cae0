//! The statements of a session: one after another, each to its end, whether the caller still waits or not. A statement that
//! is left half-way ends the connection.
//!
//! Tries, releases and checks that wait at the same time share one statement. A statement with a check asks for the id of
//! the session first: something between us and the server may have changed the session.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Value;
use tokio::sync::watch;

use super::asks::{Ask, Shared, Tried, Waited};
use super::connection::{Conn, Rows};
use super::error;

use crate::clock::{self, Instant};
use crate::contract::Released;
use crate::error::Error;
use crate::net::failure::Failure;
use crate::net::request::answer_within;
use crate::runtime::lock;
use crate::timing::{self, PATIENCE};

/// The most tries, releases and checks in one statement.
const TOGETHER: usize = 128;

/// The longest time between two statements of a session that holds a lock: the driver doesn't notice a connection that
/// was closed.
const PING: Duration = Duration::from_secs(1);

/// Returns the fencing token of a `UUID_SHORT()` that was read after the lock was granted: the time at which the server was
/// started and a counter, without the number of the server, and with room for the tokens of a local hand-off.
fn fence_of(uuid: u64) -> u64 {
    (uuid & ((1 << 56) - 1)) << 5
}

/// The first words of statements that are rolled back together when one of them fails.
pub(super) const TOGETHER_OR_NOT: &str = "START TRANSACTION";

/// The work of a session's task.
enum Work {
    Together(Vec<Ask>),
    Alone(Ask),
    /// A statement that only asks for an answer.
    Ping,
    Close,
}

/// Runs the statements of a session until it ends.
pub(super) async fn serve(shared: Arc<Shared>, mut conn: Conn) {
    loop {
        let work = next(&shared).await;
        let done = match work {
            Work::Close => break,
            Work::Together(asks) => together(&shared, &mut conn, asks).await,
            Work::Alone(ask) => alone(&shared, &mut conn, ask).await,
            Work::Ping => ping(&shared, &mut conn).await,
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
            if state.given_up {
                return Work::Close;
            }
            if state.asks.front().is_some_and(Ask::shares) {
                let many = state.asks.iter().take(TOGETHER).take_while(|ask| ask.shares()).count();
                return Work::Together(state.asks.drain(..many).collect());
            }
            if let Some(ask) = state.asks.pop_front() {
                return Work::Alone(ask);
            }
            if state.closing {
                return Work::Close;
            }
            let holds = state.holds_any();
            let due = match holds {
                false => shared.since().plus(timing::session_limit(shared.ttl)),
                // At whole seconds, in which wait_timeout is counted.
                true if shared.dedicated => shared.heard().plus(PING),
                true => shared.heard().plus(interval(shared.ttl)),
            };
            match due.passed() {
                true if state.is_idle() => return Work::Close,
                // The server has ended it by now.
                true if holds && shared.dedicated && shared.since().plus(shared.ttl).passed() => return Work::Close,
                true if holds => return Work::Ping,
                // It is chosen, and not asked yet.
                true => interval(shared.ttl),
                false => due.left(),
            }
        };
        tokio::select! {
            biased;
            () = more => {}
            () = shared.given_up.notified() => {}
            () = clock::sleep(pause) => {}
        }
    }
}

/// Returns the time from one statement to the next of a session that holds a lock.
fn interval(ttl: Duration) -> Duration {
    timing::renewal_interval(ttl).min(PING)
}

/// The answer to a statement on a connection that lives.
struct Run {
    sent: Instant,
    answer: Result<Vec<Rows>, Failure>,
}

impl Run {
    /// Returns the numbers of the only row. `checks`: its first column is the id of the session.
    fn numbers(&mut self, conn: &Conn, checks: bool) -> Result<Result<Vec<Option<u64>>, Failure>, Failure> {
        let all = match &mut self.answer {
            Err(failure) => return Ok(Err(failure.clone())),
            Ok(all) => all,
        };
        let row = all.pop().and_then(|mut rows| rows.pop()).ok_or_else(|| conn.unreadable())?;
        let number = |value| match value {
            Value::NULL => Ok(None),
            value => mysql_async::from_value_opt(value).map(Some).map_err(|_| conn.unreadable()),
        };
        let mut numbers = row.unwrap().into_iter().map(number).collect::<Result<Vec<_>, _>>()?;
        if checks && (numbers.is_empty() || numbers.remove(0) != Some(conn.id)) {
            return Err(Failure::in_doubt(Error::refused(error::pooler(conn.name()))));
        }
        Ok(Ok(numbers))
    }
}

/// Runs a statement. `limit`: the time after which its connection is given up. `renews`: the ttl counts from it.
async fn run(shared: &Shared, conn: &mut Conn, sql: &str, limit: Duration, renews: bool) -> Result<Run, Failure> {
    let sent = Instant::now();
    lock(&shared.state).asking = Some(sent);
    let answered = tokio::select! {
        biased;
        answered = conn.try_run(sql) => answered,
        () = shared.given_up.notified() => return Err(shared.over()),
        () = clock::sleep(limit) => {
            lock(&shared.state).given_up = true;
            return Err(Failure::in_doubt(shared.server.silence("no answer came in time")));
        }
    };
    match answered {
        Ok(rows) => {
            shared.answered(sent, renews);
            Ok(Run { sent, answer: Ok(rows) })
        }
        Err(error) => {
            let failure = error::of(&error, conn.name());
            if error::ends_connection(&error) {
                return Err(failure);
            }
            // What would have set wait_timeout again may have failed.
            shared.answered(sent, renews && !shared.dedicated);
            Ok(Run { sent, answer: Err(failure) })
        }
    }
}

/// Asks for an answer. A session that isn't kept alive ends when it would have ended without that.
async fn ping(shared: &Shared, conn: &mut Conn) -> Result<(), Failure> {
    let mut sql = String::new();
    if shared.dedicated {
        let left = shared.since().plus(shared.ttl).left();
        // Rounded to whole seconds, a moment after one has passed.
        let seconds = (left + PING / 2).as_secs().max(1);
        let _ = write!(sql, "SET SESSION wait_timeout={seconds}; ");
    }
    sql += "SELECT CONNECTION_ID()";
    let mut run = run(shared, conn, &sql, shared.ttl, !shared.dedicated).await?;
    run.numbers(conn, true).map(drop)
}

/// Runs tries, releases and checks in one statement.
async fn together(shared: &Shared, conn: &mut Conn, asks: Vec<Ask>) -> Result<(), Failure> {
    let asks: Vec<_> = asks.into_iter().filter_map(|ask| prepared(shared, ask)).collect();
    if asks.is_empty() {
        return Ok(());
    }
    let sql = sql_of(shared, &asks, false);
    let mut run = run(shared, conn, &sql, shared.ttl, true).await?;
    if let Ok(numbers) = run.numbers(conn, checks(&asks))? {
        return share(shared, conn, &numbers, run.sent, asks, false);
    }
    // The statement was stopped, and any part of it may have been done. Each of them can be asked again.
    for ask in asks {
        let sql = sql_of(shared, std::slice::from_ref(&ask), true);
        let mut run = self::run(shared, conn, &sql, shared.ttl, true).await?;
        match run.numbers(conn, checks(std::slice::from_ref(&ask)))? {
            Ok(numbers) => share(shared, conn, &numbers, run.sent, vec![ask], true)?,
            Err(failure) => refuse(shared, ask, failure),
        }
    }
    Ok(())
}

/// Notes what an ask may change, or answers it if nothing is to be asked.
fn prepared(shared: &Shared, ask: Ask) -> Option<Ask> {
    let mut state = lock(&shared.state);
    let asks = match &ask {
        Ask::Try { name, nonce, answer } => !answer.is_closed() && state.add(name, *nonce),
        Ask::Release { name, nonce, .. } => state.holds(name, *nonce),
        _ => true,
    };
    drop(state);
    if asks {
        return Some(ask);
    }
    match ask {
        Ask::Try { answer, .. } => drop(answer.send(Ok(Tried::Busy))),
        Ask::Release { answer, .. } => drop(answer.map(|answer| answer.send(Ok(Released::NotOurs)))),
        _ => {}
    }
    None
}

/// Returns true if the statement of these asks asks for the id of the session.
fn checks(asks: &[Ask]) -> bool {
    asks.iter().any(|ask| matches!(ask, Ask::Check { .. }))
}

/// Returns the statement of these asks. `again`: they were asked before, and may have been done.
fn sql_of(shared: &Shared, asks: &[Ask], again: bool) -> String {
    let mut sql = String::new();
    // Writing to a String can't fail.
    if shared.dedicated && checks(asks) {
        // A ping may have shortened it.
        let _ = write!(sql, "SET SESSION wait_timeout={}; ", shared.ttl.as_secs());
    }
    sql += "SELECT ";
    if checks(asks) {
        sql += "CONNECTION_ID() i,";
    }
    for ask in asks {
        // Short names: the answer has them too.
        let _ = match ask {
            Ask::Try { name, .. } if again => {
                write!(sql, "IF(IS_USED_LOCK('{name}')<=>CONNECTION_ID(),1,GET_LOCK('{name}',0)) t,UUID_SHORT() u,")
            }
            Ask::Try { name, .. } => write!(sql, "GET_LOCK('{name}',0) t,UUID_SHORT() u,"),
            Ask::Release { name, .. } => write!(sql, "RELEASE_LOCK('{name}') r,"),
            _ => Ok(()),
        };
    }
    sql.pop();
    sql
}

/// Gives each ask its numbers.
fn share(
    shared: &Shared,
    conn: &Conn,
    numbers: &[Option<u64>],
    sent: Instant,
    asks: Vec<Ask>,
    again: bool,
) -> Result<(), Failure> {
    let mut numbers = numbers.iter().copied();
    let mut next = || numbers.next().ok_or_else(|| conn.unreadable());
    for ask in asks {
        match ask {
            Ask::Try { name, nonce, answer } => {
                let (got, uuid) = (next()?, next()?);
                let fence = uuid.map(fence_of).filter(|_| got == Some(1));
                tried(shared, &name, nonce, sent, fence, |tried| answer.send(Ok(tried)).is_ok());
            }
            Ask::Release { name, answer, .. } => {
                // Its first sending may have given the lock back.
                let was_ours = next()? == Some(1) || again;
                lock(&shared.state).remove(&name);
                let released = if was_ours { Released::Yes } else { Released::NotOurs };
                drop(answer.map(|answer| answer.send(Ok(released))));
            }
            Ask::Check { answer } => drop(answer.send(Ok(sent))),
            Ask::Wait { .. } | Ask::Run { .. } => {}
        }
    }
    Ok(())
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

/// Answers an ask that failed by itself. A try that failed may have the lock all the same, and a lock that is to be given
/// back still may be held.
fn refuse(shared: &Shared, ask: Ask, failure: Failure) {
    match &ask {
        Ask::Try { name, nonce, .. } | Ask::Release { name, nonce, answer: None } => {
            shared.push(Ask::Release { name: name.clone(), nonce: *nonce, answer: None });
        }
        _ => {}
    }
    ask.fail(failure);
}

/// Runs what can't share a statement.
async fn alone(shared: &Shared, conn: &mut Conn, ask: Ask) -> Result<(), Failure> {
    match ask {
        Ask::Wait { name, nonce, seconds, answer } => wait(shared, conn, name, nonce, seconds, answer).await,
        Ask::Run { sql, answer } => {
            let asked = run(shared, conn, &sql, shared.ttl, true).await?;
            if asked.answer.is_err() && sql.starts_with(TOGETHER_OR_NOT) {
                run(shared, conn, "ROLLBACK", shared.ttl, true).await?;
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
    {
        let mut state = lock(&shared.state);
        if answer.is_closed() || !state.add(&name, nonce) {
            state.end_wait();
            return Ok(());
        }
    }
    let sql = format!("SELECT GET_LOCK('{name}',{seconds}) t,UUID_SHORT() u");
    let limit = Duration::from_secs(seconds) + shared.ttl;
    let mut run = run(shared, conn, &sql, limit, true).await?;
    // A statement that was killed or timed out. MariaDB says NULL.
    let mut got = run.numbers(conn, false)?.unwrap_or_else(|_| vec![None, None]);
    if got.first() == Some(&None) {
        let sql = format!("SELECT CONNECTION_ID() i,IS_USED_LOCK('{name}')<=>CONNECTION_ID() t,UUID_SHORT() u");
        run = self::run(shared, conn, &sql, shared.ttl, true).await?;
        // Without an answer the session ends: it holds nothing else.
        got = run.numbers(conn, true)??;
    }
    if !lock(&shared.state).end_wait() {
        return Err(shared.over());
    }
    let [granted, uuid] = got[..] else { return Err(conn.unreadable()) };
    let fence = uuid.map(fence_of).filter(|_| granted == Some(1));
    tried(shared, &name, nonce, run.sent, fence, |tried| answer.send(Some(Ok(tried))).is_ok());
    Ok(())
}
