//! The mode `get_lock`: locks of `GET_LOCK`, each held by a session.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Row;
use mysql_async::prelude::FromValue;

use super::connection::{Rows, Server};
use super::contender::GetLockContender;
use super::error::{self, SERVICE};
use super::grant::{self, GetLockGrant};
use super::keys;
use super::session::{Purpose, Session};
use super::sessions::Sessions;
use crate::config::Config;
use crate::contract::{Backend, Claim, Contender, ContenderInfo, Context, DueLease, Renewal};
use crate::error::{Error, Kind, Result};
use crate::net::failure::{Failure, Outcome};
use crate::net::in_doubt::{self, Remnant};
use crate::runtime::BoxFuture;
use crate::timing::{Backoff, PATIENCE};

/// The locks of one server.
#[derive(Debug)]
pub(super) struct GetLock {
    /// True if a break may end a session with all its locks.
    collateral: bool,
    pub(super) sessions: Sessions,
    context: Context,
}

impl GetLock {
    /// Reads the configuration. No I/O.
    pub(super) fn new(config: &Config, context: Context) -> Result<Self> {
        let sessions = Sessions::new(Server::new(config)?, Purpose::Locks, config.default_ttl(), context.clone());
        let collateral = config.values().flag("collateral") == Some(true);
        Ok(Self { collateral, sessions, context })
    }

    /// Runs one statement on a session that doesn't wait; `except`: not on this one.
    async fn rows(&self, sql: String, except: Option<&Session>, budget: Duration) -> Result<Vec<Row>, Failure> {
        Ok(self.sets(sql, except, budget).await?.pop().unwrap_or_default())
    }

    /// Runs statements as [`rows`](Self::rows), and returns the rows of each. On a session that ends meanwhile they are
    /// run again on another: none of them does harm twice.
    async fn sets(&self, sql: String, except: Option<&Session>, budget: Duration) -> Result<Vec<Rows>, Failure> {
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
    async fn kill(&self, id: u64, except: Option<&Session>, budget: Duration) -> Result<(), Failure> {
        match self.rows(format!("KILL {id}"), except, budget.min(PATIENCE)).await {
            Err(failure) if error::has_code(&failure, &[1094]) => Ok(()),
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

    async fn who(&self, name: &str) -> Result<Vec<ContenderInfo>, Failure> {
        // A pattern of LIKE: its only special character that a name may have is the underscore.
        let wait = format!("SELECT CONNECTION_ID(),GET_LOCK(''{}'',%", name.replace('_', "\\_"));
        let sql = format!(
            "SELECT IS_USED_LOCK('{name}'); SELECT ID, HOST, TIME, INFO LIKE '{wait}' FROM information_schema.PROCESSLIST \
             WHERE ID<>CONNECTION_ID() AND (ID=IS_USED_LOCK('{name}') OR INFO LIKE '{wait}') ORDER BY TIME DESC, ID"
        );
        let mut sets = self.sets(sql, None, PATIENCE).await?.into_iter();
        let holder = sets.next().and_then(|rows| column::<u64>(rows.first()?, 0));
        let mut found: Vec<_> = sets.next().unwrap_or_default().iter().filter_map(|row| about(row, holder)).collect();
        // Nothing more is known of a session of another user, if this one may not see it.
        if holder.is_some() && found.iter().all(|one| !one.held) {
            found.push(ContenderInfo { held: true, ..ContenderInfo::default() });
        }
        found.sort_by_key(|one| !one.held);
        Ok(found)
    }

    async fn end_holder(&self, name: &str) -> Result<bool, Failure> {
        let Some(holder) = self.holder(name, None, PATIENCE).await? else { return Ok(false) };
        let chosen = self.sessions.asking(None).await?;
        if chosen.session().id() == holder {
            // A session doesn't kill itself before it has answered.
            chosen.session().abandon();
        } else {
            self.kill(holder, None, PATIENCE).await?;
        }
        self.context.warn(&format!(
            "the break of {name:?} has ended session {holder} at {SERVICE} {}, with every other lock that it held",
            self.sessions.server.name()
        ));
        Ok(true)
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

/// Returns what the list of processes tells of a session.
fn about(row: &Row, holder: Option<u64>) -> Option<ContenderInfo> {
    let id: u64 = column(row, 0)?;
    let held = holder == Some(id);
    let waits = column::<u8>(row, 3) == Some(1);
    let host: Option<String> = column(row, 1);
    let age = column(row, 2).filter(|_| !held).map(Duration::from_secs);
    let host = host.map(|host| host.rsplit_once(':').map_or(host.clone(), |(host, _)| host.to_owned()));
    (held || waits).then(|| ContenderInfo { held, host, age, ..ContenderInfo::default() })
}

fn column<T: FromValue>(row: &Row, at: usize) -> Option<T> {
    row.get_opt(at)?.ok()
}

impl Backend for GetLock {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(keys::name(key))
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(GetLockContender::new(self, claim))
    }

    /// Returns no limit: one statement renews any number of locks.
    fn renew_limit(&self) -> usize {
        usize::MAX
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            match DueLease::downcast_all::<GetLockGrant>(due) {
                Ok(grants) => grant::renew(self, &grants).await,
                Err(error) => vec![Err(error); due.len()],
            }
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async move { self.who(name).await.map_err(|failure| failure.error) })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            if !self.collateral {
                return Err(Error::new(
                    Kind::Unsupported,
                    "GET_LOCK has no break: the server can only end the whole session of the holder, with all its locks. Use \
                     ?mode=table, or allow that with ?collateral=true",
                ));
            }
            self.end_holder(name).await.map_err(|failure| failure.error)
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let asked = self.rows("SELECT 1".to_owned(), None, self.sessions.limits(PATIENCE).budget).await;
            asked.map(drop).map_err(|failure| failure.error)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.sessions.close() })
    }
}
