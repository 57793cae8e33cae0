//! The mode `table`: locks in the rows of a table, each with a lease.
//!
//! A row has all claims of one lock, see `table_state`. How rows are read and written: `table_rows`.

use std::sync::Arc;

use super::keys;
use super::table_contender::TableContender;
use super::table_grant::{self, TableGrant};
use super::table_rows::TableRows;
use crate::config::Config;
use crate::contract::{Backend, Claim, Contender, ContenderInfo, Context, DueLease, Renewal};
use crate::error::Result;
use crate::runtime::BoxFuture;
use crate::timing::PATIENCE;

/// The locks in one table.
#[derive(Debug)]
pub(super) struct Table(Arc<TableRows>);

impl Table {
    /// Reads the configuration. No I/O.
    pub(super) fn new(config: &Config, context: Context) -> Result<Self> {
        Ok(Self(Arc::new(TableRows::new(config, context)?)))
    }
}

impl Backend for Table {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(keys::row(key))
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(TableContender::new(self.0.clone(), claim))
    }

    fn renew_limit(&self) -> usize {
        200
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            match DueLease::downcast_all::<TableGrant>(due) {
                Ok(grants) => table_grant::renew(&self.0, &grants).await,
                Err(error) => vec![Err(error); due.len()],
            }
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async move {
            let mut seen = self.0.read(&[name], PATIENCE, self.0.end()).await?;
            Ok(seen.row(name, "").state.contenders(seen.now))
        })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { Ok(self.0.evict(name).await?) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(self.0.ask("SELECT 1", PATIENCE, self.0.end()).await.map(drop)?) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async move { Ok(self.0.names(prefix).await?) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.0.sessions.close() })
    }
}
