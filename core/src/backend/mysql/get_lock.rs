//! The mode `get_lock`: locks of `GET_LOCK`, each held by a session.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Row;

use super::contender::GetLockContender;
use super::error::{self, SERVICE};
use super::grant::{self, GetLockGrant};
use super::keys;
use super::shared::{GetLock, column};
use crate::contract::{Backend, Claim, Contender, ContenderInfo, DueLease, Renewal};
use crate::error::{Error, Kind, Result};
use crate::net::failure::{Failure, Outcome};
use crate::runtime::BoxFuture;
use crate::timing::PATIENCE;

impl GetLock {
    async fn who(&self, name: &str) -> Result<Vec<ContenderInfo>, Failure> {
        // A pattern of LIKE: its only special character that a name may have is the underscore.
        let wait = format!("SELECT GET|_LOCK(''{}'',%", name.replace('_', "|_"));
        let sql = format!(
            "SELECT IS_USED_LOCK('{name}'); SELECT ID, HOST, TIME, INFO LIKE '{wait}' ESCAPE '|' FROM information_schema.PROCESSLIST \
             WHERE ID<>CONNECTION_ID() AND (ID=IS_USED_LOCK('{name}') OR INFO LIKE '{wait}' ESCAPE '|') \
             ORDER BY TIME DESC, ID"
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

    /// Ends the session that holds a lock, with all its locks.
    async fn end_holder(&self, name: &str) -> Result<bool, Failure> {
        let chosen = self.sessions.asking(None).await?;
        let session = chosen.session();
        let rows = session.run(format!("SELECT IS_USED_LOCK('{name}')"), PATIENCE).await?.pop().unwrap_or_default();
        let Some(holder) = rows.first().and_then(|row| column::<u64>(row, 0)) else { return Ok(false) };
        match session.run(format!("KILL {holder}"), PATIENCE).await {
            // It was its own, or has ended meanwhile.
            Err(failure) if failure.outcome == Outcome::LeaseGone || error::has_code(&failure, &[1094, 1317]) => {}
            killed => drop(killed?),
        }
        self.context.warn(&format!(
            "the break of {name:?} has ended session {holder} at {SERVICE} {}, with every other lock that it held",
            self.sessions.server.name()
        ));
        Ok(true)
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
                Ok(grants) => grant::renew(&grants).await,
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
