//! Holders and waiters of a lock, the break of a lock, and the locks below a prefix.

use std::collections::{BTreeSet, HashSet};

use super::jute::Reader;
use super::keys::{Contending, key_of, permits_directory};
use super::permits::{read_slots, read_waiting};
use super::protocol::{Request, Stat, code};
use super::session::{Refusal, Session};
use super::shared::{names_of, unreadable};
use crate::clock::Instant;
use crate::contract::record::contender_info;
use crate::contract::{Admission, ContenderInfo, Mode, admit};
use crate::error::Error;
use crate::net::failure::owner_changes;
use crate::net::request::Limits;

/// A contender of a lock.
struct Found {
    name: String,
    mode: Mode,
    held: bool,
}

/// Returns the contenders that have a node in a directory, in their order.
async fn queue(session: &Session, directory: &str, limits: Limits) -> Result<Vec<Found>, Refusal> {
    let path = || directory.to_owned();
    let requests = [Request::Sync { path: path() }, Request::Children { path: path(), watch: false }];
    let names = match session.ask_all(&requests, limits).await?.pop() {
        Some(listed) if listed.code != code::NO_NODE => names_of(session, directory, &listed, limits).await?,
        _ => Vec::new(),
    };
    let mut all: Vec<_> = names.iter().filter_map(|name| Contending::read(name)).collect();
    if let Some(first) = all.iter().find(|one| one.number.is_some()).copied() {
        all.sort_by_key(|one| one.place(&first));
    }
    let mut ahead = Vec::with_capacity(all.len());
    let found = |one: Contending<'_>| {
        let held = one.number.is_none() || admit(one.mode, ahead.iter().copied()) == Admission::Now;
        ahead.push(one.mode);
        Found { name: one.name.to_owned(), mode: one.mode, held }
    };
    Ok(all.into_iter().map(found).collect())
}

/// Returns the contents and the descriptions of nodes; `None` for one that is gone.
async fn contents(
    session: &Session,
    directory: &str,
    found: &[Found],
    limits: Limits,
) -> Result<Vec<Option<(Vec<u8>, Stat)>>, Refusal> {
    let mut contents = Vec::with_capacity(found.len());
    let path = |one: &Found| format!("{directory}/{}", one.name);
    let requests: Vec<_> = found.iter().map(|one| Request::Data { path: path(one), watch: false }).collect();
    for reply in session.ask_all(&requests, limits).await? {
        let mut read = Reader::new(&reply.body);
        contents.push(match reply.code {
            code::NO_NODE => None,
            _ => {
                let data = read.bytes().map(<[u8]>::to_vec);
                let both = data.and_then(|data| Ok((data, Stat::read(&mut read)?)));
                Some(both.map_err(|why| unreadable(session, why))?)
            }
        });
    }
    Ok(contents)
}

/// Returns the holders, then the queue.
pub(super) async fn contenders(
    session: &Session,
    directory: &str,
    limits: Limits,
) -> Result<Vec<ContenderInfo>, Refusal> {
    let all = queue(session, directory, limits).await?;
    let (mut infos, mut records) = (Vec::with_capacity(all.len()), HashSet::with_capacity(all.len()));
    for (one, content) in all.iter().zip(contents(session, directory, &all, limits).await?) {
        let Some((data, stat)) = content else { continue };
        let (slots, record) = match one.mode {
            Mode::Permits { .. } => read_slots(&data),
            _ => (Vec::new(), &data[..]),
        };
        let fence = u64::try_from(stat.created).ok().filter(|_| one.held);
        infos.push(ContenderInfo { held: one.held, fence, mode: one.mode, slots, ..contender_info(record) });
        records.insert(record.to_vec());
    }
    infos.sort_by_key(|info| !info.held);
    // Of those who wait for their turn to take permits, the first has a node in the queue of the lock already, unless the
    // permits are kazoo's.
    let turns = permits_directory(directory);
    let waiting = queue(session, &turns, limits).await?;
    for content in contents(session, &turns, &waiting, limits).await?.into_iter().flatten() {
        let (mode, record) = read_waiting(&content.0);
        if record.is_empty() || !records.contains(record) {
            infos.push(ContenderInfo { mode, ..contender_info(record) });
        }
    }
    Ok(infos)
}

/// Deletes the nodes of the holders; where nobody holds, that of the first who waits for a turn to take permits. Returns
/// false if the lock was free.
pub(super) async fn break_lock(session: &Session, directory: &str, limits: Limits) -> Result<bool, Refusal> {
    let end = Instant::now().plus(limits.budget);
    loop {
        let mut found = queue(session, directory, limits).await?;
        found.retain(|one| one.held);
        let mut directory = directory.to_owned();
        if found.is_empty() {
            directory = permits_directory(&directory);
            found = queue(session, &directory, limits).await?;
            found.truncate(1);
        }
        if found.is_empty() {
            return Ok(false);
        }
        // The name of a node is never used again.
        let requests: Vec<_> =
            found.iter().map(|one| Request::Delete { path: format!("{directory}/{}", one.name) }).collect();
        let replies = session.ask_all(&requests, limits).await?;
        if replies.iter().any(|reply| reply.code != code::NO_NODE) {
            return Ok(true);
        }
        if end.passed() {
            return Err(Refusal::not_applied(owner_changes(&directory)));
        }
    }
}

/// Returns the keys of a prefix whose locks are held or waited for. `above`: the parent of all locks.
pub(super) async fn keys(session: &Session, above: &str, prefix: &str, limits: Limits) -> Result<Vec<String>, Refusal> {
    let end = Instant::now().plus(limits.budget);
    let first = if above.is_empty() { "/" } else { above };
    session.ask(Request::Sync { path: first.to_owned() }, limits).await?;
    let (mut open, mut keys) = (vec![first.to_owned()], BTreeSet::new());
    while !open.is_empty() {
        let some = std::mem::take(&mut open);
        let limits = Limits { budget: end.left(), ..limits };
        if end.passed() {
            let text = "ZooKeeper has more locks than can be listed in time: use a longer prefix";
            return Err(Refusal::not_applied(Error::unavailable(text)));
        }
        let requests: Vec<_> = some.iter().map(|path| Request::Children { path: path.clone(), watch: false }).collect();
        for (reply, path) in session.ask_all(&requests, limits).await?.into_iter().zip(&some) {
            let known = key_of(above, path);
            if reply.code == code::NO_NODE {
                continue;
            }
            let names = Reader::new(&reply.body).texts().map_err(|why| unreadable(session, why))?;
            for name in names {
                // A holder of kazoo's semaphore looks like a directory, and a directory like it.
                match (&known, Contending::read(&name).filter(|one| one.number.is_some())) {
                    (Some(key), Some(_)) if key.starts_with(prefix) => drop(keys.insert(key.clone())),
                    (Some(_), Some(_)) => {}
                    _ => {
                        let path = format!("{}/{name}", path.trim_end_matches('/'));
                        // The keys below it begin with its own.
                        if key_of(above, &path).is_some_and(|key| key.starts_with(prefix) || prefix.starts_with(&key)) {
                            open.push(path);
                        }
                    }
                }
            }
        }
    }
    Ok(keys.into_iter().collect())
}
