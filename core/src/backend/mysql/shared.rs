//! The parts of the mode `get_lock` that contenders and grants share: its sessions, and what is asked of other sessions.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Row;
use mysql_async::prelude::FromValue;

use super::connection::{Rows, Server};
use super::error;
use super::session::{Purpose, Session};
use super::sessions::Sessions;
use crate::config::Config;
use crate::contract::Context;
use crate::error::Result;
use crate::net::failure::{Failure, Outcome};
use crate::net::in_doubt::{self, Remnant};
use crate::timing::{Backoff, PATIENCE};

/// The locks of one server.
#[derive(Debug)]
pub(super) struct GetLock {
    /// True if a break may end a session with all its locks.
    pub(super) collateral: bool,
    pub(super) sessions: Sessions,
    pub(super) context: Context,
}

impl GetLock {
    /// Reads the configuration. No I/O.
    pub(super) fn new(config: &Config, context: Context) -> Result<Self> {
        let sessions = Sessions::new(Server::new(config)?, Purpose::Locks, config.default_ttl(), context.clone());
        let collateral = config.values().flag("collateral") == Some(true);
        Ok(Self { collateral, sessions, context })
    }

    /// Runs one statement on a session that doesn't wait; `except`: not on this one.
    pub(super) async fn rows(
        &self,
        sql: String,
        except: Option<&Session>,
        budget: Duration,
    ) -> Result<Vec<Row>, Failure> {
        Ok(self.sets(sql, except, budget).await?.pop().unwrap_or_default())
    }

    /// Runs statements as [`rows`](Self::rows), and returns the rows of each. On a session that ends meanwhile they are
    /// run again on another: none of them does harm twice.
    pub(super) async fn sets(
        &self,
        sql: String,
        except: Option<&Session>,
        budget: Duration,
    ) -> Result<Vec<Rows>, Failure> {
        let chosen = self.sessions.asking(except).await?;
        match chosen.session().run(sql.clone(), budget).await {
            Err(failure) if failure.outcome == Outcome::LeaseGone => {
                self.sessions.asking(except).await?.session().run(sql, budget).await
            }
            sets => sets,
        }
    }

    /// Returns the id of the session that holds a lock. `except`: not by asking this one, which doesn't answer.
    pub(super) async fn holder(
        &self,
        name: &str,
        except: Option<&Session>,
        budget: Duration,
    ) -> Result<Option<u64>, Failure> {
        let rows = self.rows(format!("SELECT IS_USED_LOCK('{name}')"), except, budget.min(PATIENCE)).await?;
        Ok(rows.first().and_then(|row| column(row, 0)))
    }

    /// Stops a session: `KILL QUERY` ends its statement, `KILL` the whole of it. One that has ended, or was at another server
    /// than there is now, is stopped.
    async fn stop(&self, how: &str, session: &Session, budget: Duration) -> Result<(), Failure> {
        let chosen = self.sessions.asking(Some(session)).await?;
        if chosen.session().place() != session.place() {
            return Ok(());
        }
        match chosen.session().run(format!("{how} {}", session.id()), budget.min(PATIENCE)).await {
            Err(failure) if error::has_code(&failure, &[1094, 1095]) => Ok(()),
            stopped => stopped.map(drop),
        }
    }

    /// Ends the statement of a session.
    pub(super) async fn stop_statement(&self, session: &Session, budget: Duration) -> Result<(), Failure> {
        self.stop("KILL QUERY", session, budget).await
    }

    /// Ends a session that was given up: at the server too, since nothing may reach it from here.
    pub(super) async fn end(&self, session: &Session, budget: Duration) -> Result<(), Failure> {
        self.stop("KILL", session, budget).await
    }

    /// Gives a lock back in the background that a try may have taken, or may still take. A session that gives no answer is
    /// ended if nobody has a use for it.
    pub(super) fn take_back(self: &Arc<Self>, session: &Arc<Session>, name: &Arc<str>, nonce: u64) {
        session.take_back(name, nonce);
        in_doubt::take_back(Leftover {
            mysql: self.clone(),
            session: session.clone(),
            name: name.clone(),
            nonce,
            pauses: Backoff::up_to(Duration::from_millis(250)),
        });
    }
}

/// A lock that a session may hold, and nobody has a use for.
struct Leftover {
    mysql: Arc<GetLock>,
    session: Arc<Session>,
    name: Arc<str>,
    nonce: u64,
    pauses: Backoff,
}

impl Remnant for Leftover {
    async fn take_back(&mut self) -> bool {
        let session = &self.session;
        if session.is_over() || !session.holds(&self.name, self.nonce) {
            return true;
        }
        session.give_up_silent() && self.mysql.end(session, PATIENCE).await.is_ok()
    }

    fn pause(&mut self) -> Duration {
        self.pauses.next()
    }
}

/// Returns a value of a row.
pub(super) fn column<T: FromValue>(row: &Row, at: usize) -> Option<T> {
    row.get_opt(at)?.ok()
}
