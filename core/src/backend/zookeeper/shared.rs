//! The parts of the backend that contenders and grants share: the place of its locks and its sessions.

use std::time::Duration;

use super::connection::Reply;
use super::error::of_code;
use super::jute::{Malformed, Reader};
use super::keys::{self, Contending, Dialect, PREFIX};
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

    /// Creates the directory of a lock, and those of its parents that are missing, as containers: the server deletes them
    /// when they are empty.
    pub(super) async fn create_directory(
        &self,
        session: &Session,
        directory: &str,
        limits: Limits,
    ) -> Result<(), Refusal> {
        let create = |path: &str| {
            let (path, acl) = (path.to_owned(), session.acl);
            Request::Create { path, data: Vec::new(), kind: NodeKind::Container, acl }
        };
        if session.ask(create(directory), limits).await?.code != code::NO_NODE {
            return Ok(());
        }
        let requests: Vec<_> = keys::parents(self.sessions.root(), directory).map(create).collect();
        let mut answers = session.ask_each(&requests, limits).await?;
        if matches!(answers.first(), Some(Ok(first)) if first.code == code::NO_NODE) {
            return Err(of_code(code::NO_NODE, self.sessions.root(), &session.link.names()).into());
        }
        // A parent that is there already may be one that only others may change. One that is gone again by now is created
        // by the next call.
        answers.pop().map_or(Ok(()), |last| last.map(drop).map_err(Refusal::from))
    }
}

/// Returns the refusal of an answer that can't be read.
pub(super) fn unreadable(session: &Session, why: Malformed) -> Refusal {
    Refusal::not_applied(Error::unavailable(format!("ZooKeeper at {} gave {why}", session.link.names())))
}

/// Returns the names of the nodes in a directory that may be contenders, and sets a watch on it. `None`: there is no such
/// node.
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
    names_of(session, directory, &reply, limits).await.map(Some)
}

/// Reads the answer to [`Request::Children`] of a directory. Leaves out what looks like a holder of kazoo's `Semaphore`, and
/// is the directory of another lock.
pub(super) async fn names_of(
    session: &Session,
    directory: &str,
    reply: &Reply,
    limits: Limits,
) -> Result<Vec<String>, Refusal> {
    let mut names = Reader::new(&reply.body).texts().map_err(|why| unreadable(session, why))?;
    let is_bare = |name: &mut String| Contending::read(name).is_some_and(|one| one.number.is_none());
    let bare: Vec<_> = names.extract_if(.., is_bare).collect();
    if bare.is_empty() {
        return Ok(names);
    }
    let ask = |name: &String| Request::Exists { path: format!("{directory}/{name}"), watch: false };
    let requests: Vec<_> = bare.iter().map(ask).collect();
    for (reply, name) in session.ask_all(&requests, limits).await?.iter().zip(bare) {
        if stat_of(session, reply)?.is_some_and(|stat| stat.session != 0) {
            names.push(name);
        }
    }
    Ok(names)
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
