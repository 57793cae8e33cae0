//! Holder and waiters of a lock, and the break of a lock.

use super::jute::Reader;
use super::keys::{Contending, Kind};
use super::protocol::{Request, Stat, code};
use super::session::{Refusal, Session};
use super::shared::{children, unreadable};
use crate::clock::Instant;
use crate::contract::record::contender_info;
use crate::contract::{Admission, ContenderInfo, Mode, admit};
use crate::net::failure::owner_changes;
use crate::net::request::Limits;

/// Returns the names of the contenders of a lock, in their order.
async fn queue(session: &Session, directory: &str, limits: Limits) -> Result<Vec<String>, Refusal> {
    session.ask(Request::Sync { path: directory.to_owned() }, limits).await?;
    let names = children(session, directory, limits).await?.unwrap_or_default();
    let mut all: Vec<_> = names.iter().filter_map(|name| Contending::read(name)).collect();
    if let Some(first) = all.first().copied() {
        all.sort_by_key(|one| one.place(&first));
    }
    Ok(all.into_iter().map(|one| one.name.to_owned()).collect())
}

/// Returns the holders, then the queue.
pub(super) async fn contenders(
    session: &Session,
    directory: &str,
    limits: Limits,
) -> Result<Vec<ContenderInfo>, Refusal> {
    let names = queue(session, directory, limits).await?;
    let requests: Vec<_> =
        names.iter().map(|name| Request::Data { path: format!("{directory}/{name}"), watch: false }).collect();
    let (mut found, mut modes) = (Vec::new(), Vec::new());
    for (reply, name) in session.ask_all(&requests, limits).await?.into_iter().zip(&names) {
        if reply.code == code::NO_NODE {
            continue;
        }
        let mut read = Reader::new(&reply.body);
        let data = read.bytes().map_err(|why| unreadable(session, why))?;
        let stat = Stat::read(&mut read).map_err(|why| unreadable(session, why))?;
        let shared = Contending::read(name).is_some_and(|one| one.kind == Kind::Shared);
        let mode = if shared { Mode::Shared } else { Mode::Exclusive };
        let held = admit(mode, modes.iter().copied()) == Admission::Now;
        modes.push(mode);
        let fence = u64::try_from(stat.created).ok().filter(|_| held);
        found.push(ContenderInfo { held, fence, mode, ..contender_info(data) });
    }
    Ok(found)
}

/// Deletes the node of the holder. Returns false if the lock was free.
pub(super) async fn break_lock(session: &Session, directory: &str, limits: Limits) -> Result<bool, Refusal> {
    let end = Instant::now().plus(limits.budget);
    loop {
        let Some(first) = queue(session, directory, limits).await?.into_iter().next() else { return Ok(false) };
        // The name of a node is never used again.
        let reply = session.ask(Request::Delete { path: format!("{directory}/{first}") }, limits).await?;
        if reply.code != code::NO_NODE {
            return Ok(true);
        }
        if end.passed() {
            return Err(Refusal::not_applied(owner_changes(directory)));
        }
    }
}
