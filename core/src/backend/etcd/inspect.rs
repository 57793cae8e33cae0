//! Holder and waiters of a lock, and the break of a lock.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, ResponseHeader, Txn, TxnOp};

use super::connection::Link;
use super::keys::{after, is_child, owner_record, range};
use super::mutex::{get, txn};
use super::request::Refusal;
use crate::contract::ContenderInfo;
use crate::contract::owner::parse_owner;
use crate::net::request::Limits;

/// The number of keys that are read at a time, with their values.
const PAGE: i64 = 512;

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
    let mut holders: Vec<_> = all.iter().map(holder).collect();
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

/// Reads the record of a contender.
fn holder(contender: &KeyValue) -> ContenderInfo {
    let Some(record) = owner_record(contender.value()) else { return ContenderInfo::default() };
    let (host, pid) = parse_owner(record.claim);
    let token = if record.token.is_empty() { record.claim } else { record.token };
    ContenderInfo {
        token: Some(token.to_owned()),
        label: Some(record.label.to_owned()).filter(|label| !label.is_empty()),
        host,
        pid,
        ..ContenderInfo::default()
    }
}

/// Deletes the key of the holder. Returns false if the lock was free.
pub(super) async fn break_lock(link: &Arc<Link>, name: &str, limits: Limits) -> Result<bool, Refusal> {
    let Some(first) = queue(link, name, limits).await?.into_iter().next() else { return Ok(false) };
    let request = Txn::new()
        .when([Compare::create_revision(first.key(), CompareOp::Equal, first.create_revision())])
        .and_then([TxnOp::delete(first.key(), None)]);
    let answer = txn(link, limits, &request).await?;
    // The transaction fails if the key is gone. After a request without an answer that counts as broken.
    Ok(answer.value.succeeded() || !answer.unanswered.is_empty())
}
