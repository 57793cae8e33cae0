//! The rows of the table of leases: how they are read and written.
//!
//! Every change names the version of the row that it was made from, so a late one changes nothing. No lock of the server
//! outlives a request.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::Row;
use mysql_async::prelude::FromValue;
use tokio::sync::Notify;

use super::connection::{Rows, Server};
use super::error::{self, SERVICE};
use super::keys;
use super::session::{Purpose, Session};
use super::sessions::Sessions;
use super::statements::TOGETHER_OR_NOT;
use super::table_state::{Place, State, Text, micros};
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::net::failure::{Failure, Outcome};
use crate::runtime::{self, lock};
use crate::timing::PATIENCE;

/// The number of times in a row that a change meets another one before its caller pauses.
pub(super) const TRIES: u32 = 8;

/// The time after which a session that does nothing has ended at the server. No lock depends on it.
const SESSION: Duration = Duration::from_secs(60);

/// The time of the server, in microseconds.
const NOW: &str = "CAST(UNIX_TIMESTAMP(NOW(6))*1000000 AS UNSIGNED)";

/// The rows of a table of leases, one for each lock.
#[derive(Debug)]
pub(super) struct TableRows {
    pub(super) sessions: Sessions,
    /// The database, the table of locks and the table of the counter, as statements name them.
    database: String,
    locks: String,
    fences: String,
    /// The claims of this client that wait, by the name of the lock.
    waiting: Mutex<HashMap<Arc<str>, Vec<Waiting>>>,
}

/// A claim that waits: its nonce, and what wakes it.
type Waiting = (u64, Arc<Notify>);

/// The writes of a claim that may have been applied.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// The sessions on which one was sent, and that gave no answer.
    unanswered: Vec<Arc<Session>>,
    /// True if a write was sent, and the row wasn't seen after it.
    are_open: bool,
}

impl Doubts {
    /// Returns true if a write may have been applied, or may still be.
    pub(super) fn are_open(&self) -> bool {
        self.are_open
    }

    /// Notes that the row was seen after all writes.
    pub(super) fn are_seen(&mut self) {
        self.are_open = !self.unanswered.is_empty();
    }

    /// Adds a write that is about to be sent.
    fn add(&mut self, session: &Arc<Session>) {
        self.unanswered.push(session.clone());
        self.are_open = true;
    }

    /// Removes the writes of a session on which a later statement was answered.
    fn answered_on(&mut self, session: &Session) {
        self.unanswered.retain(|other| other.number() != session.number());
    }
}

/// A row, as it was read.
#[derive(Debug, Default)]
pub(super) struct Version {
    /// 0: there is no row.
    pub(super) version: u64,
    pub(super) state: State,
}

/// The rows that were read.
#[derive(Debug)]
pub(super) struct Seen {
    /// The time at which the request was sent.
    pub(super) sent: Instant,
    /// The time of the server, not before that.
    pub(super) now: u64,
    rows: HashMap<Vec<u8>, Version>,
}

impl Seen {
    /// Returns the row of a name, without what has expired. `asking`: this claim keeps its place.
    pub(super) fn row(&mut self, name: &str, asking: &str) -> Version {
        let mut row = self.rows.remove(name.as_bytes()).unwrap_or_default();
        row.state.drop_expired(self.now, asking);
        row
    }

    /// Returns the time from which the ttl of a lease counts.
    pub(super) fn since(&self, held: &Place, ttl: Duration) -> Instant {
        self.sent.minus(ttl.saturating_sub(held.left(self.now)))
    }
}

/// A write, and the rows after it.
#[derive(Debug)]
pub(super) struct Written {
    /// True if the row was changed by it.
    pub(super) done: bool,
    pub(super) seen: Seen,
}

/// Returns a text as a statement has it.
fn literal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len() + 3);
    text.push_str("x'");
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\'');
    text
}

fn column<T: FromValue>(row: &Row, at: usize) -> Option<T> {
    row.get_opt(at)?.ok()
}

/// Returns true if another try can help at once: the server has ended a deadlock or a wait by this statement, or has met a
/// change of another session.
pub(super) fn was_rolled_back(failure: &Failure) -> bool {
    error::has_code(failure, &[1020, 1205, 1213])
}

/// Returns true if a statement may have been applied, or may still be.
pub(super) fn is_in_doubt(failure: &Failure) -> bool {
    matches!(failure.outcome, Outcome::InDoubt | Outcome::LeaseGone)
}

impl TableRows {
    /// Reads the configuration. No I/O.
    pub(super) fn new(config: &Config, context: Context) -> Result<Self> {
        let sessions = Sessions::new(Server::new(config)?, Purpose::Rows, SESSION, context);
        let database = config.values().text("dbname").unwrap_or("dlock").replace('`', "``");
        let table = |name| format!("`{database}`.{name}");
        let (locks, fences) = (table("dlock_locks"), table("dlock_fences"));
        Ok(Self { sessions, database: format!("`{database}`"), locks, fences, waiting: Mutex::default() })
    }

    /// Returns the end of a request that isn't part of an acquire.
    pub(super) fn end(&self) -> Instant {
        Instant::now().plus(self.sessions.limits(PATIENCE).budget)
    }

    /// Runs statements that do no harm twice, on another session after a silence, until they are answered. Returns the time
    /// at which they were sent, and the rows of each.
    pub(super) async fn ask(
        &self,
        sql: &str,
        patience: Duration,
        end: Instant,
    ) -> Result<(Instant, Vec<Rows>), Failure> {
        let mut made = false;
        loop {
            let chosen = self.sessions.spread(None, end.left()).await?;
            let sent = Instant::now();
            match chosen.session().run(sql.to_owned(), patience.min(end.left())).await {
                Ok(sets) => return Ok((sent, sets)),
                Err(failure) if is_missing(&failure) && !made => {
                    drop(chosen);
                    self.make(end).await?;
                    made = true;
                }
                Err(failure) if was_rolled_back(&failure) && !end.passed() => jitter().await,
                Err(failure) if is_in_doubt(&failure) => {
                    let _ = chosen.session().give_up();
                    if end.passed() {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(self.with_remedy(failure)),
            }
        }
    }

    /// Reads the rows of these names.
    pub(super) async fn read(&self, names: &[&str], patience: Duration, end: Instant) -> Result<Seen, Failure> {
        let (sent, sets) = self.ask(&self.reading(names), patience, end).await?;
        self.seen(sent, sets)
    }

    /// Returns the statements that read these rows.
    fn reading(&self, names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|name| literal(name.as_bytes())).collect();
        format!("SELECT {NOW}; SELECT name, version, claims FROM {} WHERE name IN ({})", self.locks, names.join(","))
    }

    /// Reads the last two of these sets.
    fn seen(&self, sent: Instant, mut sets: Vec<Rows>) -> Result<Seen, Failure> {
        let (rows, times) = (sets.pop().unwrap_or_default(), sets.pop().unwrap_or_default());
        let now = times.first().and_then(|row| column(row, 0)).ok_or_else(|| self.unreadable())?;
        let row = |row: &Row| {
            let (name, claims): (Vec<u8>, Vec<u8>) = (column(row, 0)?, column(row, 2)?);
            Some((name, Version { version: column(row, 1)?, state: State::read(&claims)? }))
        };
        let rows = rows.iter().map(|one| row(one).ok_or_else(|| self.unreadable())).collect::<Result<_, _>>()?;
        Ok(Seen { sent, now, rows })
    }

    fn unreadable(&self) -> Failure {
        Failure::not_applied(Error::refused(format!(
            "{SERVICE} at {} has a row in {} that dlock didn't write: remove it there",
            self.sessions.server.name(),
            self.locks
        )))
    }

    /// Writes, and then reads the row: once, since only the caller knows what a write without an answer means.
    async fn write(
        &self,
        sql: &str,
        name: &str,
        doubts: &mut Doubts,
        patience: Duration,
        end: Instant,
    ) -> Result<Written, Failure> {
        let mut made = false;
        loop {
            let sets = self.sent(format!("{sql}; {}", self.reading(&[name])), doubts, patience.min(end.left())).await;
            let (sent, sets) = match sets {
                Err(failure) if is_missing(&failure) && !made => {
                    self.make(end).await?;
                    made = true;
                    continue;
                }
                sets => sets.map_err(|failure| self.with_remedy(failure))?,
            };
            // The only other set with a row: the number of rows that were changed, and the counter.
            let answer = sets[..sets.len().saturating_sub(2)].iter().flatten().next();
            let done = answer.and_then(|row| column::<i64>(row, 0)).is_some_and(|many| many > 0);
            if answer.and_then(|row| column::<u64>(row, 1)).is_none() && !made {
                self.make(end).await?;
                made = true;
                continue;
            }
            return Ok(Written { done, seen: self.seen(sent, sets)? });
        }
    }

    /// Sends statements that write.
    async fn sent(&self, sql: String, doubts: &mut Doubts, budget: Duration) -> Result<(Instant, Vec<Rows>), Failure> {
        let chosen = self.sessions.spread(None, budget).await?;
        let session = chosen.session();
        // Before it is sent, because the caller may leave at any time.
        doubts.add(session);
        let sent = Instant::now();
        let answer = session.run(sql, budget).await;
        match &answer {
            Err(failure) if is_in_doubt(failure) => drop(session.give_up()),
            _ => doubts.answered_on(session),
        }
        Ok((sent, answer?))
    }

    /// Grants a lock that has no row, to the claim of this place. Its times begin when the server writes them.
    pub(super) async fn insert(
        &self,
        name: &str,
        place: &Place,
        ttl: Duration,
        doubts: &mut Doubts,
        patience: Duration,
        end: Instant,
    ) -> Result<Written, Failure> {
        let (head, tail) = (literal(place.head().as_bytes()), literal(place.tail().as_bytes()));
        let claims = format!("CONCAT({head},fence,' ',{NOW}+{},' ',{NOW},{tail})", micros(ttl));
        // A version that no row of this name had before.
        let version = fastrand::u64(1..1 << 62);
        let (locks, fences) = (&self.locks, &self.fences);
        let write = format!(
            "INSERT IGNORE INTO {locks} (name, version, expires, claims) SELECT {},{version},{NOW}+{},{claims} FROM {fences} \
             WHERE id=1",
            literal(name.as_bytes()),
            micros(ttl)
        );
        self.write(&self.granting(&write), name, doubts, patience, end).await
    }

    /// Replaces the claims of a row, if it still has this version.
    pub(super) async fn replace(
        &self,
        name: &str,
        row: &Version,
        doubts: &mut Doubts,
        patience: Duration,
        end: Instant,
    ) -> Result<Written, Failure> {
        let text = row.state.text();
        let grants = text.after.is_some();
        let write = self.replacing(name, row, text);
        let sql = if grants { self.granting(&write) } else { format!("{write}; SELECT ROW_COUNT(), 1") };
        self.write(&sql, name, doubts, patience, end).await
    }

    /// Replaces the claims of several rows that exist, all or none. Returns the rows after it: those that had another
    /// version are as they were.
    pub(super) async fn replace_all(
        &self,
        rows: &[(&str, &Version)],
        patience: Duration,
        end: Instant,
    ) -> Result<Seen, Failure> {
        let writes: Vec<_> = rows.iter().map(|(name, row)| self.replacing(name, row, row.state.text())).collect();
        let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        let (writes, read) = (writes.join("; "), self.reading(&names));
        let sql = match rows {
            [_] => format!("{writes}; {read}"),
            _ => format!("{TOGETHER_OR_NOT}; {writes}; COMMIT; {read}"),
        };
        let (sent, sets) = self.sent(sql, &mut Doubts::default(), patience.min(end.left())).await?;
        self.seen(sent, sets)
    }

    /// Returns the statement that replaces the claims of a row, if it still has this version.
    fn replacing(&self, name: &str, row: &Version, text: Text) -> String {
        let (locks, version, literal_name) = (&self.locks, row.version, literal(name.as_bytes()));
        let is_same = if mutant!("mysql-table-version-ignored") {
            format!("name={literal_name}")
        } else {
            format!("name={literal_name} AND version={version}")
        };
        if row.state.is_empty() {
            return format!("DELETE FROM {locks} WHERE {is_same}");
        }
        let (before, expires) = (literal(text.before.as_bytes()), row.state.last_end());
        let claims = match text.after {
            Some(after) => {
                let fence = format!("(SELECT fence FROM {} WHERE id=1)", self.fences);
                format!("CONCAT({before},{fence},{})", literal(after.as_bytes()))
            }
            None => before,
        };
        if version == 0 {
            let version = fastrand::u64(1..1 << 62);
            return format!(
                "INSERT IGNORE INTO {locks} (name, version, expires, claims) SELECT \
                 {literal_name},{version},{expires},{claims} FROM DUAL"
            );
        }
        format!("UPDATE {locks} SET claims={claims}, expires={expires}, version=version+1 WHERE {is_same}")
    }

    /// Returns the statements of a write that grants: it has the counter for itself from its step until it is done, so no
    /// later grant has a smaller fence.
    fn granting(&self, write: &str) -> String {
        let fences = &self.fences;
        let step = if mutant!("mysql-table-fence-not-stepped") { 0 } else { 1 };
        format!(
            "{TOGETHER_OR_NOT}; UPDATE {fences} SET fence=fence+{step} WHERE id=1; {write}; SELECT ROW_COUNT(), (SELECT fence \
             FROM {fences} WHERE id=1); COMMIT"
        )
    }

    /// Returns the statements that make the tables.
    fn making(&self) -> [String; 4] {
        let (database, locks, fences) = (&self.database, &self.locks, &self.fences);
        [
            format!("CREATE DATABASE IF NOT EXISTS {database}"),
            format!(
                "CREATE TABLE IF NOT EXISTS {fences} (id TINYINT UNSIGNED NOT NULL PRIMARY KEY, fence BIGINT UNSIGNED NOT NULL) \
                 ENGINE=InnoDB"
            ),
            // Greater than any fence of a table that was dropped.
            format!("INSERT IGNORE INTO {fences} VALUES (1, UNIX_TIMESTAMP()*1048576)"),
            format!(
                "CREATE TABLE IF NOT EXISTS {locks} (name VARBINARY({}) NOT NULL PRIMARY KEY, version BIGINT UNSIGNED NOT NULL, \
                 expires BIGINT UNSIGNED NOT NULL, claims MEDIUMBLOB NOT NULL, KEY (expires)) ENGINE=InnoDB",
                keys::ROW
            ),
        ]
    }

    /// Makes the tables.
    async fn make(&self, end: Instant) -> Result<(), Failure> {
        for (at, sql) in self.making().into_iter().enumerate() {
            let chosen = self.sessions.spread(None, end.left()).await?;
            match chosen.session().run(sql, end.left()).await {
                Ok(_) => {}
                // The database may be there all the same.
                Err(failure) if is_denied(&failure) && at == 0 => {}
                // No claim depends on it yet.
                Err(failure) if is_in_doubt(&failure) => {
                    let _ = chosen.session().give_up();
                    return Err(Failure::not_applied(failure.error));
                }
                Err(failure) => return Err(self.with_remedy(failure)),
            }
        }
        Ok(())
    }

    /// Adds what to do to the failure of a user who lacks a right.
    fn with_remedy(&self, failure: Failure) -> Failure {
        if !is_denied(&failure) {
            return failure;
        }
        let text = format!(
            "{}. The user needs SELECT, INSERT, UPDATE and DELETE on {}.*, and these statements have to be run there, by \
             whoever may: {}",
            failure.error.message(),
            self.database,
            self.making().join("; ")
        );
        Failure { error: Error::refused(text), ..failure }
    }

    /// Makes sure that no write of these is applied any more.
    pub(super) async fn settle(&self, doubts: &mut Doubts, patience: Duration, end: Instant) -> Result<(), Failure> {
        while let Some(session) = doubts.unanswered.first().cloned() {
            if !session.is_over() && !session.is_silent() {
                // What was sent before is executed before.
                match session.run("DO 0".to_owned(), patience.min(end.left())).await {
                    Err(failure) if is_in_doubt(&failure) => drop(session.give_up()),
                    _ => {
                        doubts.answered_on(&session);
                        continue;
                    }
                }
            }
            self.end_session(&session, end).await?;
            doubts.answered_on(&session);
        }
        Ok(())
    }

    /// Ends a session at the server, and waits until it is gone.
    async fn end_session(&self, session: &Session, end: Instant) -> Result<(), Failure> {
        let _ = session.give_up();
        if mutant!("mysql-table-late-write-forgotten") {
            return Ok(());
        }
        loop {
            let chosen = self.sessions.spread(Some(session), end.left()).await?;
            // At another server the id is that of somebody else.
            if chosen.session().place() != session.place() {
                return Ok(());
            }
            match chosen.session().run(format!("KILL {}", session.id()), PATIENCE.min(end.left())).await {
                Ok(_) => clock::sleep(Duration::from_millis(2)).await,
                Err(failure) if error::has_code(&failure, &[1094, 1095]) => return Ok(()),
                Err(failure) if is_in_doubt(&failure) => {
                    let _ = chosen.session().give_up();
                    if end.passed() {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
            if end.passed() {
                return Err(Failure::not_applied(self.sessions.server.silence("a session didn't end in time")));
            }
        }
    }

    /// Removes a claim of which no write is in doubt.
    pub(super) async fn remove(
        &self,
        name: &str,
        id: &str,
        doubts: &mut Doubts,
        patience: Duration,
        end: Instant,
    ) -> Result<(), Failure> {
        let mut seen = self.read(&[name], patience, end).await?;
        for _ in 0..TRIES {
            let mut row = seen.row(name, id);
            if row.state.find(id).is_none() {
                return Ok(());
            }
            row.state.remove(seen.now, id);
            let written = self.replace(name, &row, doubts, patience, end).await?;
            if written.done {
                self.wake(name);
                return Ok(());
            }
            seen = written.seen;
            jitter().await;
        }
        Err(contended(name))
    }

    /// Adds a claim of this client that waits.
    pub(super) fn waits(&self, name: &Arc<str>, nonce: u64) -> Arc<Notify> {
        let wake = Arc::new(Notify::new());
        lock(&self.waiting).entry(name.clone()).or_default().push((nonce, wake.clone()));
        wake
    }

    /// Removes a claim of this client that waits.
    pub(super) fn waits_no_more(&self, name: &str, nonce: u64) {
        let mut waiting = lock(&self.waiting);
        let Some(claims) = waiting.get_mut(name) else { return };
        claims.retain(|(other, _)| *other != nonce);
        if claims.is_empty() {
            waiting.remove(name);
        }
    }

    /// Wakes the claims of this client that wait for a lock.
    pub(super) fn wake(&self, name: &str) {
        lock(&self.waiting).get(name).into_iter().flatten().for_each(|(_, wake)| wake.notify_one());
    }

    /// Deletes some rows in the background whose claims have all expired: of keys that nobody locks any more.
    pub(super) fn sweep(self: &Arc<Self>) {
        let table = self.clone();
        runtime::spawn(async move {
            let sql = format!("DELETE FROM {} WHERE expires<{NOW}-60000000 ORDER BY expires LIMIT 200", table.locks);
            // Another sweep comes.
            let _ = table.ask(&sql, PATIENCE, table.end()).await;
        });
    }

    /// Removes the holders of a lock. Returns false if there are none.
    pub(super) async fn evict(&self, name: &str) -> Result<bool, Failure> {
        let end = self.end();
        let mut seen = self.read(&[name], PATIENCE, end).await?;
        for _ in 0..TRIES {
            let mut row = seen.row(name, "");
            if !row.state.remove_holders() {
                return Ok(false);
            }
            let written = self.replace(name, &row, &mut Doubts::default(), PATIENCE, end).await?;
            if written.done {
                self.wake(name);
                return Ok(true);
            }
            seen = written.seen;
            jitter().await;
        }
        Err(contended(name))
    }

    /// Returns the names of this prefix that are held or waited for.
    pub(super) async fn names(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let (length, prefix) = (prefix.len(), literal(prefix.as_bytes()));
        let sql = format!(
            "SELECT {NOW}; SELECT name, version, claims FROM {} WHERE name>={prefix} AND LEFT(name,{length})={prefix}",
            self.locks
        );
        let (sent, sets) = self.ask(&sql, PATIENCE, self.end()).await?;
        let mut seen = self.seen(sent, sets)?;
        let names: Vec<_> = seen.rows.keys().filter_map(|name| String::from_utf8(name.clone()).ok()).collect();
        Ok(names.into_iter().filter(|name| !seen.row(name, "").state.is_empty()).collect())
    }
}

/// Returns the failure of a change that met another one each time.
pub(super) fn contended(name: &str) -> Failure {
    Failure::not_applied(Error::unavailable(format!("the row of {name:?} changes faster than a request; try again")))
}

/// Pauses for a moment, so that two that met don't meet again.
pub(super) async fn jitter() {
    clock::sleep(Duration::from_micros(fastrand::u64(..2_000))).await;
}

/// Returns true if the tables aren't there.
fn is_missing(failure: &Failure) -> bool {
    error::has_code(failure, &[1049, 1146])
}

fn is_denied(failure: &Failure) -> bool {
    error::has_code(failure, &[1044, 1142, 1227])
}
