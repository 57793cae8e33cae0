//! Holder and waiters of a lock, and the break of a lock.

use super::connection::Conn;
use super::jute::Reader;
use super::keys::{Contending, Kind};
use super::protocol::{Request, Stat, code};
use super::session::{Refusal, Session};
use super::shared::{children, unreadable};
use crate::clock::Instant;
use crate::contract::record::contender_info;
use crate::contract::{Admission, ContenderInfo, Mode, admit};
use crate::error::Error;
use crate::net::request::{Limits, answer_within};

/// Returns the names of the contenders of a lock, in their order.
async fn queue(session: &Session, directory: &str, limits: Limits) -> Result<Vec<String>, Refusal> {
    session.ask(&Request::Sync { path: directory.to_owned() }, limits).await?;
    let names = children(session, directory, limits).await?.unwrap_or_default();
    let mut all: Vec<_> = names.iter().filter_map(|name| Contending::read(name)).collect();
    all.sort_by(|a, b| if a.is_before(b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
    Ok(all.into_iter().map(|one| one.name.to_owned()).collect())
}

/// Returns the holders, then the queue.
pub(super) async fn contenders(
    session: &Session,
    directory: &str,
    limits: Limits,
) -> Result<Vec<ContenderInfo>, Refusal> {
    let names = queue(session, directory, limits).await?;
    let conn = session.connected(Instant::now().plus(limits.budget)).await?;
    let sent = Instant::now();
    let requests: Vec<_> =
        names.iter().map(|name| Request::Data { path: format!("{directory}/{name}"), watch: false }).collect();
    let calls: Vec<_> = requests.iter().map(|request| Conn::call(&conn, request)).collect();
    let (mut found, mut modes) = (Vec::new(), Vec::new());
    for ((call, request), name) in calls.into_iter().zip(&requests).zip(&names) {
        let reply = match answer_within(sent.plus(limits.budget).left(), call).await {
            Some(Ok(Ok(reply))) => session.judge(reply, request, sent)?,
            _ => return Err(Refusal::not_applied(session.link.silence("no answer came in time"))),
        };
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
        let reply = session.ask(&Request::Delete { path: format!("{directory}/{first}") }, limits).await?;
        if reply.code != code::NO_NODE {
            return Ok(true);
        }
        if end.passed() {
            let text = format!("{directory:?} passes from owner to owner faster than a request; try again");
            return Err(Refusal::not_applied(Error::unavailable(text)));
        }
    }
}
