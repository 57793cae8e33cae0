//! The parts of the backend that contenders and grants share: the place of its locks and its sessions.

use std::time::Duration;

use super::connection::Reply;
use super::error::of_code;
use super::jute::{Malformed, Reader};
use super::keys::{self, Dialect, PREFIX};
use super::protocol::{NodeKind, Request, Stat, code};
use super::session::{PORT, Refusal, Session, Sessions};
use crate::config::{Config, join_host};
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::net::request::Limits;

/// The shortest ttl: its session has more than the shortest timeout of a server with the default configuration, and half
/// a tick is less than a fifth of that.
pub(super) const MIN_TTL: Duration = Duration::from_secs(4);

/// The locks below one prefix.
#[derive(Debug)]
pub(super) struct ZooKeeper {
    pub(super) dialect: Dialect,
    /// The chroot and the prefix.
    pub(super) prefix: String,
    pub(super) sessions: Sessions,
}

impl ZooKeeper {
    /// Reads the configuration. No I/O.
    pub(super) fn new(config: &Config, context: Context) -> Result<Self> {
        let values = config.values();
        let servers = match values.list("servers").unwrap_or_default() {
            [] => vec![join_host("localhost", Some(PORT))],
            servers => servers.to_vec(),
        };
        let dialect = if values.text("dialect") == Some("curator") { Dialect::Curator } else { Dialect::Kazoo };
        let (chroot, prefix) = (values.text("chroot").unwrap_or_default(), values.text("prefix").unwrap_or(PREFIX));
        let prefix = &if prefix.starts_with('/') { prefix.to_owned() } else { format!("/{prefix}") };
        keys::check_prefix(prefix)?;
        let root = if chroot.is_empty() { "/" } else { chroot };
        keys::check_prefix(root)?;
        let prefix = format!("{}{}", chroot.trim_end_matches('/'), prefix.trim_end_matches('/'));
        let (ttl, shortest) = (config.default_ttl(), MIN_TTL);
        if ttl < shortest {
            return Err(Error::invalid(format!("session_timeout of {ttl:?} is too short: use {shortest:?} or more")));
        }
        let sessions = Sessions::new(config, &servers, root.to_owned(), context)?;
        Ok(Self { dialect, prefix, sessions })
    }

    /// Creates the directory of a lock, and its parents: where the server can, as containers, which it deletes when
    /// they are empty.
    pub(super) async fn create_directory(
        &self,
        session: &Session,
        directory: &str,
        limits: Limits,
    ) -> Result<(), Refusal> {
        let requests = |kind| -> Vec<_> {
            let paths = keys::parents(self.sessions.root(), directory).map(str::to_owned);
            paths.map(|path| Request::Create { path, data: Vec::new(), kind, acl: session.acl }).collect()
        };
        let replies = match session.ask_all(&requests(NodeKind::Container), limits).await {
            // Servers that have no containers.
            Err(refusal) if !refusal.failure.error.is_temporary() => {
                session.ask_all(&requests(NodeKind::Persistent), limits).await?
            }
            replies => replies?,
        };
        // A parent that is gone again by now is created by the next call.
        match replies.first() {
            Some(reply) if reply.code == code::NO_NODE => {
                Err(of_code(code::NO_NODE, self.sessions.root(), &session.link.names()).into())
            }
            _ => Ok(()),
        }
    }
}

/// Returns the refusal of an answer that can't be read.
pub(super) fn unreadable(session: &Session, why: Malformed) -> Refusal {
    Refusal::not_applied(Error::unavailable(format!("ZooKeeper at {} gave {why}", session.link.names())))
}

/// Returns the names below a directory, and sets a watch on it. `None`: there is no such node.
pub(super) async fn children(
    session: &Session,
    directory: &str,
    watch: bool,
    limits: Limits,
) -> Result<Option<Vec<String>>, Refusal> {
    let reply = session.ask(Request::Children { path: directory.to_owned(), watch }, limits).await?;
    if reply.code == code::NO_NODE {
        return Ok(None);
    }
    Reader::new(&reply.body).texts().map(Some).map_err(|why| unreadable(session, why))
}

/// Returns what the server knows of a node, and sets a watch on it. `None`: there is no such node.
pub(super) async fn stat(session: &Session, path: &str, watch: bool, limits: Limits) -> Result<Option<Stat>, Refusal> {
    let reply = session.ask(Request::Exists { path: path.to_owned(), watch }, limits).await?;
    stat_of(session, &reply)
}

/// Reads the answer to [`Request::Exists`]. `None`: there is no such node.
pub(super) fn stat_of(session: &Session, reply: &Reply) -> Result<Option<Stat>, Refusal> {
    if reply.code == code::NO_NODE {
        return Ok(None);
    }
    Stat::read(&mut Reader::new(&reply.body)).map(Some).map_err(|why| unreadable(session, why))
}
