//! The parts of the backend that contenders and grants share: the place of its locks and its sessions.

use super::connection::Reply;
use super::error::of_code;
use super::jute::{Malformed, Reader};
use super::keys::{self, Dialect, PREFIX};
use super::protocol::{Acl, NodeKind, Request, Stat, code};
use super::session::{PORT, Refusal, Session, Sessions};
use crate::clock::Instant;
use crate::config::{Config, join_host};
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::net::request::{Limits, answer_within};

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
        keys::check_prefix(prefix)?;
        let root = if chroot.is_empty() { "/" } else { chroot };
        keys::check_prefix(root)?;
        let prefix = format!("{}{}", chroot.trim_end_matches('/'), prefix.trim_end_matches('/'));
        let sessions = Sessions::new(config, servers, root.to_owned(), context)?;
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
        let create = async |path: &str, kind| {
            let (path, data) = (path.to_owned(), Vec::new());
            session.ask(&Request::Create { path, data, kind, acl: Acl::Open }, limits).await
        };
        // Mostly only the directory itself is missing.
        let mut missing: Vec<_> = keys::parents(directory).collect();
        let mut made = Vec::new();
        while let Some(path) = missing.pop() {
            let reply = match create(path, NodeKind::Container).await {
                Err(refusal) if !refusal.failure.error.is_temporary() => create(path, NodeKind::Persistent).await?,
                reply => reply?,
            };
            match reply.code {
                code::NO_NODE if missing.is_empty() => {
                    return Err(of_code(code::NO_NODE, path, &session.link.names()).into());
                }
                code::NO_NODE => made.push(path),
                _ => missing.extend(made.pop()),
            }
        }
        Ok(())
    }
}

/// Returns the refusal of an answer that can't be read.
pub(super) fn unreadable(session: &Session, why: Malformed) -> Refusal {
    Refusal::not_applied(Error::unavailable(format!("ZooKeeper at {} gave {why}", session.link.names())))
}

/// Returns the names below a directory. `None`: there is no such node.
pub(super) async fn children(
    session: &Session,
    directory: &str,
    limits: Limits,
) -> Result<Option<Vec<String>>, Refusal> {
    let reply = session.ask(&Request::Children { path: directory.to_owned() }, limits).await?;
    if reply.code == code::NO_NODE {
        return Ok(None);
    }
    Reader::new(&reply.body).texts().map(Some).map_err(|why| unreadable(session, why))
}

/// Returns what the server knows of a node, and sets a watch on it. `None`: there is no such node.
pub(super) async fn stat(session: &Session, path: &str, watch: bool, limits: Limits) -> Result<Option<Stat>, Refusal> {
    let reply = session.ask(&Request::Exists { path: path.to_owned(), watch }, limits).await?;
    stat_of(session, &reply)
}

/// Reads the answer to [`Request::Exists`]. `None`: there is no such node.
pub(super) fn stat_of(session: &Session, reply: &Reply) -> Result<Option<Stat>, Refusal> {
    if reply.code == code::NO_NODE {
        return Ok(None);
    }
    Stat::read(&mut Reader::new(&reply.body)).map(Some).map_err(|why| unreadable(session, why))
}

/// Sends requests that only read, one behind another. Returns their answers in the same order.
pub(super) async fn ask_all(session: &Session, requests: &[Request], limits: Limits) -> Result<Vec<Reply>, Refusal> {
    let end = Instant::now().plus(limits.budget);
    let conn = session.connected(end).await?;
    let sent = Instant::now();
    let calls: Vec<_> = requests.iter().map(|request| conn.call(request)).collect();
    let mut replies = Vec::with_capacity(calls.len());
    for (call, request) in calls.into_iter().zip(requests) {
        replies.push(match answer_within(end.left(), call).await {
            Some(Ok(Ok(reply))) => session.judge(reply, request, sent)?,
            Some(Ok(Err(lost))) => return Err(Refusal::not_applied(lost.error)),
            Some(Err(_)) | None => return Err(Refusal::not_applied(session.link.silence("no answer came in time"))),
        });
    }
    Ok(replies)
}
