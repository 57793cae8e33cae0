//! The transactions of etcd's mutex, and the meaning of their answers.

use std::sync::Arc;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::connection::Link;
use super::floors::Floors;
use super::keys::{after, is_child, range};
use super::request::{Answer, Refusal, Unanswered};
use crate::contract::record::OwnerRecord;
use crate::error::Error;
use crate::net::request::Limits;

/// The number of keys that are read at a time if keys of longer names may be among them.
const PAGE: i64 = 4096;
/// The number of these keys that a try reads.
const NEW: i64 = 64;
/// The number of tries while only keys of longer names are in the way.
const TRIES: usize = 3;
/// The longest answer that is accepted. No request has an answer near it.
const ANSWER: usize = 64 << 20;
/// The number of predecessors that a claim reads. Their deletions tell it when it is its turn.
const AHEAD: i64 = 128;

/// The position of a claim in the queue.
pub(super) enum Position {
    /// Its key exists and is the first.
    First { rev: i64 },
    /// Its key exists, behind others.
    Behind { rev: i64, predecessors: Predecessors },
    /// Its key doesn't exist.
    Absent,
    /// Its key contains the value of another claim.
    Foreign(Vec<u8>),
}

/// The keys before a claim's own key, which existed at that revision too.
pub(super) struct Predecessors {
    /// The revision of the read.
    pub(super) at: i64,
    /// The keys, nearest first.
    pub(super) keys: Vec<Vec<u8>>,
    /// True if these are all.
    pub(super) complete: bool,
}

/// The transactions for one claim.
pub(super) struct MutexTxn<'a> {
    pub(super) link: &'a Arc<Link>,
    pub(super) name: &'a str,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) limits: Limits,
    pub(super) floors: &'a Floors,
    /// The number of connections that had been made at the start. The floors known then count until there is another
    /// connection.
    pub(super) made: u64,
}

/// Runs a transaction.
pub(super) async fn txn(link: &Arc<Link>, limits: Limits, txn: &Txn) -> Result<Answer<TxnResponse>, Refusal> {
    link.ask(limits, |conn| {
        let txn = txn.clone();
        async move { conn.client.kv_client().max_decoding_message_size(ANSWER).txn(txn).await }
    })
    .await
}

/// Reads a key or a range of keys.
pub(super) async fn get(
    link: &Arc<Link>,
    limits: Limits,
    key: &[u8],
    options: &GetOptions,
) -> Result<Answer<GetResponse>, Refusal> {
    link.ask(limits, |conn| {
        let (key, options) = (key.to_vec(), options.clone());
        async move { conn.client.kv_client().max_decoding_message_size(ANSWER).get(key, Some(options)).await }
    })
    .await
}

/// Returns the error for an answer that etcd doesn't give.
fn unexpected() -> Refusal {
    Refusal::not_applied(Error::unavailable("etcd answered what was not expected"))
}

/// Returns the revision of an answer.
fn revision(response: &TxnResponse) -> Result<i64, Refusal> {
    response.header().map(etcd_client::ResponseHeader::revision).ok_or_else(unexpected)
}

/// Returns the answer to one read of a transaction.
fn read(response: &TxnResponse, at: usize) -> Result<GetResponse, Refusal> {
    match response.op_responses().into_iter().nth(at) {
        Some(TxnOpResponse::Get(read)) => Ok(read),
        _ => Err(unexpected()),
    }
}

/// Deletes the key if it still has this revision; 0: this value. Returns true if it had.
pub(super) async fn delete_if_ours(
    link: &Arc<Link>,
    limits: Limits,
    (key, value): (&[u8], &[u8]),
    rev: i64,
) -> Result<Answer<bool>, Refusal> {
    let ours = match rev {
        0 => Compare::value(key, CompareOp::Equal, value),
        rev => Compare::create_revision(key, CompareOp::Equal, rev),
    };
    let when = if mutant!("etcd-deletes-by-name") { Vec::new() } else { vec![ours] };
    let request = Txn::new().when(when).and_then([TxnOp::delete(key, None)]);
    let answer = txn(link, limits, &request).await?;
    Ok(Answer { value: answer.value.succeeded(), sent: answer.sent, unanswered: answer.unanswered })
}

/// Returns the position of a key behind these predecessors.
fn placed(rev: i64, predecessors: Option<Predecessors>) -> Position {
    match predecessors {
        Some(predecessors) => Position::Behind { rev, predecessors },
        None => Position::First { rev },
    }
}

impl MutexTxn<'_> {
    /// Acquires the lock if it is free. Never queues.
    pub(super) async fn acquire(&self, lease: i64) -> Result<(Position, Unanswered), Refusal> {
        let (from, to) = range(self.name);
        let mut unanswered = Unanswered::new();
        for _ in 0..TRIES {
            let floor = self.floor();
            let free = match floor {
                0 => Compare::create_revision(from.clone(), CompareOp::Equal, 0),
                // No older key is in the way.
                floor => Compare::create_revision(from.clone(), CompareOp::Less, floor),
            };
            let others = self.newest(if floor == 0 { 1 } else { NEW }, floor);
            let request = Txn::new()
                .when([free.with_range(to.clone())])
                .and_then([self.put(lease)])
                .or_else([TxnOp::get(self.key, None), TxnOp::get(from.clone(), Some(others))]);
            let answer = txn(self.link, self.limits, &request).await?;
            unanswered.extend(answer.unanswered);
            let rev = revision(&answer.value)?;
            if answer.value.succeeded() {
                return Ok((placed(rev, self.behind_floor(floor, rev).await?), unanswered));
            }
            if let Some(own) = read(&answer.value, 0)?.kvs().first() {
                return Ok((self.found(own, rev).await?, unanswered));
            }
            if self.predecessors(&read(&answer.value, 1)?, rev + 1, rev).await?.is_some() {
                return Ok((Position::Absent, unanswered));
            }
            // Only keys of longer names are in the way.
        }
        let (seen, more) = self.enqueue(lease).await?;
        unanswered.extend(more);
        Ok((seen, unanswered))
    }

    /// Acquires the lock, or a place in the queue.
    pub(super) async fn enqueue(&self, lease: i64) -> Result<(Position, Unanswered), Refusal> {
        let floor = self.floor();
        let absent = Compare::create_revision(self.key, CompareOp::Equal, 0);
        let request = Txn::new()
            .when([absent])
            .and_then([self.put(lease), TxnOp::get(range(self.name).0, Some(self.newest(AHEAD + 1, floor)))])
            .or_else([TxnOp::get(self.key, None)]);
        let answer = txn(self.link, self.limits, &request).await?;
        let rev = revision(&answer.value)?;
        let seen = if answer.value.succeeded() {
            let predecessors = match self.behind_floor(floor, rev).await? {
                None => self.predecessors(&read(&answer.value, 1)?, rev, rev).await?,
                predecessors => predecessors,
            };
            placed(rev, predecessors)
        } else {
            match read(&answer.value, 0)?.kvs().first() {
                Some(own) => self.found(own, rev).await?,
                None => return Err(unexpected()),
            }
        };
        Ok((seen, answer.unanswered))
    }

    /// Returns the position of the key with this revision. It is one read of all keys as of one revision, and no
    /// transaction: servers of 3.5 before 3.5.5 end when the client of a transaction that only reads goes away.
    pub(super) async fn locate(&self, rev: i64) -> Result<Position, Refusal> {
        let floor = self.floor().min(rev);
        let answer = self.read(AHEAD + 1, floor, |options| options.with_max_create_revision(rev)).await?;
        let at = answer.header().map(etcd_client::ResponseHeader::revision).ok_or_else(unexpected)?;
        let own = answer.kvs().iter().any(|own| own.key() == self.key && own.create_revision() == rev);
        if !own && !mutant!("etcd-own-key-not-checked") {
            return Ok(Position::Absent);
        }
        Ok(placed(rev, self.predecessors(&answer, rev, at).await?))
    }

    /// Returns the options for the newest keys in the range, none older than the floor.
    fn newest(&self, limit: i64, floor: i64) -> GetOptions {
        let options = GetOptions::new().with_range(range(self.name).1).with_keys_only().with_limit(limit);
        options.with_sort(SortTarget::Create, SortOrder::Descend).with_min_create_revision(floor)
    }

    /// Reads the newest keys. After a new connection it reads again without the floor, which may be that of another
    /// cluster.
    async fn read(
        &self,
        limit: i64,
        floor: i64,
        of: impl Fn(GetOptions) -> GetOptions,
    ) -> Result<GetResponse, Refusal> {
        let from = range(self.name).0;
        let found = get(self.link, self.limits, &from, &of(self.newest(limit, floor))).await?.value;
        if floor == 0 || self.is_connected_as_before() {
            return Ok(found);
        }
        Ok(get(self.link, self.limits, &from, &of(self.newest(limit, 0))).await?.value)
    }

    /// Returns true if no connection was made since the start.
    fn is_connected_as_before(&self) -> bool {
        self.link.made() == self.made
    }

    /// Returns the revision below which no contender has a key; 0: not known.
    fn floor(&self) -> i64 {
        if self.is_connected_as_before() { self.floors.of(self.made, self.name) } else { 0 }
    }

    /// Returns the put of the claim's key.
    fn put(&self, lease: i64) -> TxnOp {
        TxnOp::put(self.key, self.value, Some(PutOptions::new().with_lease(lease)))
    }

    /// Returns the position of the key that was found instead of being put, as of this revision.
    async fn found(&self, own: &KeyValue, at: i64) -> Result<Position, Refusal> {
        if OwnerRecord::read(own.value()).map(|record| record.claim)
            != OwnerRecord::read(self.value).map(|record| record.claim)
        {
            return Ok(Position::Foreign(own.value().to_vec()));
        }
        let rev = own.create_revision();
        Ok(placed(rev, self.older(rev, at).await?))
    }

    /// Returns the predecessors of our key of this revision if the floor can't be relied on: a cluster that was
    /// restored has gone back behind the floor, and has perhaps passed it again.
    async fn behind_floor(&self, floor: i64, rev: i64) -> Result<Option<Predecessors>, Refusal> {
        if floor == 0 || floor <= rev && self.is_connected_as_before() {
            return Ok(None);
        }
        self.floors.forget(self.name);
        self.older(rev, rev).await
    }

    /// Returns the contenders older than `below`, as of this revision.
    async fn older(&self, below: i64, at: i64) -> Result<Option<Predecessors>, Refusal> {
        let of = |options: GetOptions| options.with_max_create_revision(below - 1).with_revision(at);
        let answer = self.read(AHEAD, self.floor(), of).await?;
        self.predecessors(&answer, below, at).await
    }

    /// Returns the other contenders among these keys, which are the newest of those older than `below`, as of this
    /// revision.
    async fn predecessors(&self, found: &GetResponse, below: i64, at: i64) -> Result<Option<Predecessors>, Refusal> {
        let others = found.kvs().iter().map(KeyValue::key).filter(|key| *key != self.key);
        let keys: Vec<_> = others.clone().filter(|key| is_child(self.name, key)).map(<[u8]>::to_vec).collect();
        if !keys.is_empty() {
            return Ok(Some(Predecessors { at, keys, complete: !found.more() }));
        }
        let predecessors = if found.more() { Box::pin(self.scan(below, at)).await? } else { None };
        if predecessors.is_none() && others.count() > 0 {
            // The keys there belong to longer names, and no later contender is older.
            self.floors.raise(self.made, self.name, below);
        }
        Ok(predecessors)
    }

    /// Reads the complete range for the contenders older than `below`, as of this revision.
    async fn scan(&self, below: i64, at: i64) -> Result<Option<Predecessors>, Refusal> {
        let (mut from, to) = range(self.name);
        let mut found = Vec::new();
        loop {
            let options = GetOptions::new().with_range(to.clone()).with_keys_only().with_limit(PAGE).with_revision(at);
            let page = get(self.link, self.limits, &from, &options).await?.value;
            let contenders = page.kvs().iter().filter(|other| {
                other.key() != self.key && other.create_revision() < below && is_child(self.name, other.key())
            });
            found.extend(contenders.map(|other| (other.create_revision(), other.key().to_vec())));
            match page.kvs().last() {
                Some(last) if page.more() => from = after(self.name, last.key()),
                _ => break,
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        let ahead = usize::try_from(AHEAD).unwrap_or(usize::MAX);
        let complete = found.len() <= ahead;
        let keys: Vec<_> = found.into_iter().take(ahead).map(|(_, key)| key).collect();
        Ok((!keys.is_empty()).then_some(Predecessors { at, keys, complete }))
    }
}
