//! Orphans: nodes of claims that have ended. They are deleted until they are gone, or until their session is.

use std::sync::Arc;
use std::time::Duration;

use super::protocol::{Request, code};
use super::session::{Refusal, Session};
use super::shared::children;
use crate::net::in_doubt::{self, Remnant};
use crate::net::request::Limits;
use crate::timing::{Backoff, PATIENCE};

/// The node of a claim, which exists or may exist.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) directory: String,
    /// The beginning of its name, which no other claim has.
    pub(super) name: String,
    /// Its path, if it is known to exist.
    pub(super) path: Option<String>,
}

impl Node {
    /// Finds the node by its name, after all that the session had sent before. `None`: there is none.
    pub(super) async fn find(&self, session: &Session, limits: Limits) -> Result<Option<String>, Refusal> {
        session.ask(session.confirmation(), limits).await?;
        let names = children(session, &self.directory, false, limits).await?.unwrap_or_default();
        Ok(names.iter().find(|name| name.starts_with(&self.name)).map(|name| format!("{}/{name}", self.directory)))
    }

    /// Deletes the node. Returns false if there was none.
    pub(super) async fn delete(&self, session: &Session, limits: Limits) -> Result<bool, Refusal> {
        let path = match &self.path {
            Some(path) => Some(path.clone()),
            None => self.find(session, limits).await?,
        };
        match path {
            Some(path) => Ok(session.ask(Request::Delete { path }, limits).await?.code != code::NO_NODE),
            None => Ok(false),
        }
    }
}

struct Unsettled {
    session: Arc<Session>,
    node: Node,
    pauses: Backoff,
}

/// Deletes the node in the background.
pub(super) fn take_back(session: Arc<Session>, node: Node) {
    in_doubt::take_back(Unsettled { session, node, pauses: Backoff::up_to(Duration::from_secs(1)) });
}

impl Remnant for Unsettled {
    async fn take_back(&mut self) -> bool {
        let limits = Limits { patience: PATIENCE, budget: PATIENCE * 5 };
        match self.node.delete(&self.session, limits).await {
            Ok(_) => true,
            // What is refused for good ends with its session, which no further claim gets.
            Err(refusal) => self.session.is_over() || !refusal.failure.error.is_temporary(),
        }
    }

    fn pause(&mut self) -> Duration {
        self.pauses.next()
    }
}
