//! Holder and waiters of a lock, and the break of a lock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmMember, AlarmType, Compare, CompareOp, GetOptions, KeyValue, ResponseHeader, Txn, TxnOp,
};

use super::connection::Link;
use super::keys::{after, is_child, name_of_child, range};
use super::mutex::{get, txn};
use super::request::Refusal;
use crate::clock::Instant;
use crate::contract::ContenderInfo;
use crate::contract::record::contender_info;
use crate::error::Error;
use crate::net::failure::owner_changes;
use crate::net::request::Limits;

/// The number of keys that are read at a time, with their values.
const PAGE: i64 = 512;
/// The number of keys that are read at a time, without their values.
const NAMES: i64 = 4096;

/// Returns the keys of holder and queue, in their order.
async fn queue(link: &Arc<Link>, name: &str, limits: Limits) -> Result<Vec<KeyValue>, Refusal> {
    let (mut from, to) = range(name);
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        // All pages as of one revision.
        let options = GetOptions::new().with_range(to.clone()).with_limit(PAGE).with_revision(at);
        let page = get(link, limits, &from, &options).await?.value;
        found.extend(page.kvs().iter().filter(|contender| is_child(name, contender.key())).cloned());
        match page.kvs().last() {
            Some(last) if page.more() => {
                at = if at == 0 { page.header().map_or(0, ResponseHeader::revision) } else { at };
                from = after(name, last.key());
            }
            _ => break,
        }
    }
    found.sort_unstable_by_key(KeyValue::create_revision);
    Ok(found)
}

/// Returns the holder, then the queue.
pub(super) async fn contenders(link: &Arc<Link>, name: &str, limits: Limits) -> Result<Vec<ContenderInfo>, Refusal> {
    let all = queue(link, name, limits).await?;
    let mut holders: Vec<_> = all.iter().map(|contender| contender_info(contender.value())).collect();
    if let (Some(first), Some(holder)) = (all.first(), holders.first_mut()) {
        holder.held = true;
        holder.fence = u64::try_from(first.create_revision()).ok();
        let lease = first.lease();
        if lease > 0 {
            let left =
                link.ask(limits, |conn| async move { conn.client.lease_client().time_to_live(lease, None).await });
            let left = left.await.ok().and_then(|left| u64::try_from(left.value.ttl()).ok());
            holder.ttl = left.map(Duration::from_secs);
        }
    }
    Ok(holders)
}

/// Returns the names of this prefix that have contenders.
pub(super) async fn names(link: &Arc<Link>, prefix: &str, limits: Limits) -> Result<Vec<String>, Refusal> {
    // A request needs a key. None is smaller than one zero.
    let first = if prefix.is_empty() { "\0" } else { prefix };
    let (mut from, mut names, mut at) = (first.as_bytes().to_vec(), BTreeSet::new(), 0);
    let to = GetOptions::new().with_keys_only().with_limit(NAMES);
    loop {
        // The first key of a page is the prefix itself, or the one after the last key of the page before.
        let options = to.clone().with_range(end_of(prefix)).with_revision(at);
        let page = get(link, limits, &from, &options).await?.value;
        let names_of = page.kvs().iter().filter(|kv| kv.lease() > 0).filter_map(|kv| name_of_child(kv.key()));
        names.extend(names_of.map(str::to_owned));
        match page.kvs().last() {
            Some(last) if page.more() => {
                at = if at == 0 { page.header().map_or(0, ResponseHeader::revision) } else { at };
                from = [last.key(), b"\0"].concat();
            }
            _ => return Ok(names.into_iter().filter(|name| name.starts_with(prefix)).collect()),
        }
    }
}

/// Returns the first key after all that begin with this prefix; `\0`: there is none.
fn end_of(prefix: &str) -> Vec<u8> {
    // No byte of UTF-8 is 255.
    match prefix.as_bytes() {
        [] => vec![0],
        [before @ .., last] => [before, &[last + 1]].concat(),
    }
}

/// Returns what the members complain of. Where they don't tell, that is what is returned: the user may have no right to
/// ask.
pub(super) async fn alarms(link: &Arc<Link>, limits: Limits) -> Vec<String> {
    let asked = link.ask(limits, |conn| async move {
        conn.client.maintenance_client().alarm(AlarmAction::Get, AlarmType::None, None).await
    });
    let answer = match asked.await {
        Ok(answer) => answer,
        Err(refusal) => {
            let error = Error::from(refusal);
            return vec![format!("whether a member of etcd has raised an alarm is not known: {}", error.message())];
        }
    };
    let finding = |alarm: &AlarmMember| match alarm.alarm() {
        AlarmType::Nospace => format!(
            "member {:x} of etcd has no space left, so no lock can be acquired: compact, defragment and disarm it \
             (etcdctl alarm disarm)",
            alarm.member_id()
        ),
        AlarmType::Corrupt => {
            format!(
                "member {:x} of etcd has found its data corrupt: replace it before its locks count",
                alarm.member_id()
            )
        }
        AlarmType::None => format!("member {:x} of etcd has raised an alarm", alarm.member_id()),
    };
    answer.value.alarms().iter().map(finding).collect()
}

/// Deletes the key of the holder. Returns false if the lock was free.
pub(super) async fn break_lock(link: &Arc<Link>, name: &str, limits: Limits) -> Result<bool, Refusal> {
    let end = Instant::now().plus(limits.budget);
    loop {
        let Some(first) = queue(link, name, limits).await?.into_iter().next() else { return Ok(false) };
        let request = Txn::new()
            .when([Compare::create_revision(first.key(), CompareOp::Equal, first.create_revision())])
            .and_then([TxnOp::delete(first.key(), None)]);
        let answer = txn(link, limits, &request).await?;
        // The transaction fails if the key is gone. After a request without an answer that counts as broken.
        if answer.value.succeeded() || !answer.unanswered.is_empty() {
            return Ok(true);
        }
        if end.passed() {
            return Err(Refusal::not_applied(owner_changes(name)));
        }
    }
}
