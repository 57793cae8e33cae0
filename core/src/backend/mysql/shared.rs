//! The parts of the mode `get_lock` that contenders and grants share: its sessions, and what is asked of other sessions.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Row;
use mysql_async::prelude::FromValue;

use super::connection::{Rows, Server};
use super::session::Session;
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
        let sessions = Sessions::new(Server::new(config)?, config.default_ttl(), context.clone());
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

    /// Ends the statement of a session.
    pub(super) async fn kill_statement(&self, id: u64, budget: Duration) -> Result<(), Failure> {
        self.rows(format!("KILL QUERY {id}"), None, budget).await.map(drop)
    }

    /// Ends a session, if it is still there.
    pub(super) async fn kill(&self, id: u64, except: Option<&Session>, budget: Duration) -> Result<(), Failure> {
        match self.rows(format!("KILL {id}"), except, budget.min(PATIENCE)).await {
            Err(failure) if failure.error.message().contains("error 1094") => Ok(()),
            killed => killed.map(drop),
        }
    }

    /// Ends a session in the background if it gives no answer and nobody wants what it holds.
    pub(super) fn mind(self: &Arc<Self>, session: &Arc<Session>) {
        in_doubt::take_back(Silent {
            mysql: self.clone(),
            session: session.clone(),
            pauses: Backoff::up_to(Duration::from_millis(250)),
        });
    }

    /// Ends a session that gives no answer: at the server too, since nothing may reach it from here.
    pub(super) async fn end_session(&self, session: &Session, budget: Duration) -> Result<(), Failure> {
        session.abandon();
        self.kill(session.id(), Some(session), budget).await
    }
}

/// A session whose statement has no answer yet.
struct Silent {
    mysql: Arc<GetLock>,
    session: Arc<Session>,
    pauses: Backoff,
}

impl Remnant for Silent {
    async fn take_back(&mut self) -> bool {
        let session = &self.session;
        if session.is_over() || !session.is_asking() {
            return true;
        }
        session.is_silent() && session.is_left() && self.mysql.end_session(session, PATIENCE).await.is_ok()
    }

    fn pause(&mut self) -> Duration {
        self.pauses.next()
    }
}

/// Returns a value of a row.
pub(super) fn column<T: FromValue>(row: &Row, at: usize) -> Option<T> {
    row.get_opt(at)?.ok()
}
