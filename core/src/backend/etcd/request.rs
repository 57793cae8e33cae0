//! What is asked of the server about one lock, and how its answers are read.

use std::sync::Arc;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::error::Failure;
use super::link::{Answer, Limits, Link, Refusal, Unanswered};
use super::name::{is_child, prefix, told};
use crate::error::Error;

/// How many keys of longer names are looked through at a time.
const PAGE: i64 = 64;
/// How many before a claim it is told of, so that it knows by their deletions when it is its turn.
const AHEAD: i64 = 128;

/// Where a claim stands.
pub(super) enum Seen {
    /// Its key is there and none is before it.
    First { rev: i64 },
    /// Its key is there, behind others.
    Behind { rev: i64, line: Line },
    /// Its key isn't there.
    Absent,
    /// Under its key stands what another claim has put there.
    Foreign(Vec<u8>),
}

/// The keys before a claim's own, which was there as well.
pub(super) struct Line {
    /// As of this revision.
    pub(super) at: i64,
    /// The nearest first.
    pub(super) keys: Vec<Vec<u8>>,
    /// Whether these are all.
    pub(super) whole: bool,
}

/// One claim at the server.
pub(super) struct Asker<'a> {
    pub(super) link: &'a Arc<Link>,
    pub(super) name: &'a str,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) limits: Limits,
}

pub(super) async fn txn(link: &Arc<Link>, limits: Limits, txn: &Txn) -> Result<Answer<TxnResponse>, Refusal> {
    link.ask(limits, |conn| {
        let txn = txn.clone();
        async move { conn.client.kv_client().txn(txn).await }
    })
    .await
}

/// Reads a key, or those below it.
pub(super) async fn get(
    link: &Arc<Link>,
    limits: Limits,
    key: &[u8],
    options: &GetOptions,
) -> Result<Answer<GetResponse>, Refusal> {
    link.ask(limits, |conn| {
        let (key, options) = (key.to_vec(), options.clone());
        async move { conn.client.kv_client().get(key, Some(options)).await }
    })
    .await
}

fn unexpected() -> Refusal {
    let error = Error::unavailable("etcd answered what was not expected");
    Refusal { failure: Failure::refused(error), unanswered: Unanswered::new() }
}

fn revision(response: &TxnResponse) -> Result<i64, Refusal> {
    response.header().map(etcd_client::ResponseHeader::revision).ok_or_else(unexpected)
}

fn read(response: &TxnResponse, at: usize) -> Result<GetResponse, Refusal> {
    match response.op_responses().into_iter().nth(at) {
        Some(TxnOpResponse::Get(read)) => Ok(read),
        _ => Err(unexpected()),
    }
}

/// The keys below the prefix, the newest first.
fn newest(limit: i64) -> GetOptions {
    GetOptions::new().with_prefix().with_keys_only().with_sort(SortTarget::Create, SortOrder::Descend).with_limit(limit)
}

fn placed(rev: i64, line: Option<Line>) -> Seen {
    match line {
        Some(line) => Seen::Behind { rev, line },
        None => Seen::First { rev },
    }
}

impl Asker<'_> {
    /// Takes a free lock; queues nowhere.
    pub(super) async fn take(&self, lease: i64) -> Result<(Seen, Unanswered), Refusal> {
        let prefix = prefix(self.name);
        let free = Compare::create_revision(prefix.clone(), CompareOp::Equal, 0).with_prefix();
        let request = Txn::new()
            .when([free])
            .and_then([self.put(lease)])
            .or_else([TxnOp::get(self.key, None), TxnOp::get(prefix.clone(), Some(newest(1)))]);
        let answer = txn(self.link, self.limits, &request).await?;
        let rev = revision(&answer.value)?;
        if answer.value.succeeded() {
            return Ok((Seen::First { rev }, answer.unanswered));
        }
        if let Some(own) = read(&answer.value, 0)?.kvs().first() {
            return Ok((self.found(own, rev).await?, answer.unanswered));
        }
        if self.line(&read(&answer.value, 1)?, rev + 1, rev).await?.is_some() {
            return Ok((Seen::Absent, answer.unanswered));
        }
        // Only locks of longer names are in the way.
        let (seen, unanswered) = self.enter(lease).await?;
        Ok((seen, [answer.unanswered, unanswered].concat()))
    }

    /// Takes the lock, or a place in the queue.
    pub(super) async fn enter(&self, lease: i64) -> Result<(Seen, Unanswered), Refusal> {
        let prefix = prefix(self.name);
        let absent = Compare::create_revision(self.key, CompareOp::Equal, 0);
        let request = Txn::new()
            .when([absent])
            .and_then([self.put(lease), TxnOp::get(prefix, Some(newest(AHEAD + 1)))])
            .or_else([TxnOp::get(self.key, None)]);
        let answer = txn(self.link, self.limits, &request).await?;
        let rev = revision(&answer.value)?;
        let seen = if answer.value.succeeded() {
            placed(rev, self.line(&read(&answer.value, 1)?, rev, rev).await?)
        } else {
            match read(&answer.value, 0)?.kvs().first() {
                Some(own) => self.found(own, rev).await?,
                None => return Err(unexpected()),
            }
        };
        Ok((seen, answer.unanswered))
    }

    /// Looks where the key of this revision stands. One read, which has both keys as of one moment, and no transaction: servers
    /// of 3.5 before 3.5.5 end when the client of one that only reads goes away.
    pub(super) async fn look(&self, rev: i64) -> Result<Seen, Refusal> {
        let prefix = prefix(self.name);
        let answer = self.read(&prefix, newest(AHEAD + 1).with_max_create_revision(rev)).await?;
        let at = answer.header().map(etcd_client::ResponseHeader::revision).ok_or_else(unexpected)?;
        let own = answer.kvs().iter().any(|own| own.key() == self.key && own.create_revision() == rev);
        if !own && !mutant!("etcd-own-key-not-checked") {
            return Ok(Seen::Absent);
        }
        Ok(placed(rev, self.line(&answer, rev, at).await?))
    }

    async fn read(&self, key: &[u8], options: GetOptions) -> Result<GetResponse, Refusal> {
        Ok(get(self.link, self.limits, key, &options).await?.value)
    }

    /// Deletes the key if it is still the one of this revision; 0: the one that this claim has put there. Says whether
    /// it was.
    pub(super) async fn leave(&self, rev: i64) -> Result<Answer<bool>, Refusal> {
        let ours = match rev {
            0 => Compare::value(self.key, CompareOp::Equal, self.value),
            rev => Compare::create_revision(self.key, CompareOp::Equal, rev),
        };
        let when = if mutant!("etcd-deletes-by-name") { Vec::new() } else { vec![ours] };
        let request = Txn::new().when(when).and_then([TxnOp::delete(self.key, None)]);
        let answer = txn(self.link, self.limits, &request).await?;
        Ok(Answer { value: answer.value.succeeded(), sent: answer.sent, unanswered: answer.unanswered })
    }

    fn put(&self, lease: i64) -> TxnOp {
        TxnOp::put(self.key, self.value, Some(PutOptions::new().with_lease(lease)))
    }

    /// What the key under our name means, as of this revision.
    async fn found(&self, own: &KeyValue, at: i64) -> Result<Seen, Refusal> {
        if told(own.value()).map(|told| told.claim) != told(self.value).map(|told| told.claim) {
            return Ok(Seen::Foreign(own.value().to_vec()));
        }
        let rev = own.create_revision();
        Ok(placed(rev, self.page(&prefix(self.name), rev, at).await?))
    }

    /// The other contenders among these, or the newest of those older than `below`, as of this revision.
    async fn line(&self, found: &GetResponse, below: i64, at: i64) -> Result<Option<Line>, Refusal> {
        let prefix = prefix(self.name);
        let others = found.kvs().iter().map(KeyValue::key).filter(|key| *key != self.key && is_child(&prefix, key));
        let keys: Vec<_> = others.map(<[u8]>::to_vec).collect();
        match (keys.is_empty(), found.more()) {
            (true, true) => Box::pin(self.page(&prefix, below, at)).await,
            (true, false) => Ok(None),
            (false, more) => Ok(Some(Line { at, keys, whole: !more })),
        }
    }

    /// The newest contender of those older than `below`, as of this revision: past the keys of longer names.
    async fn page(&self, prefix: &[u8], mut below: i64, at: i64) -> Result<Option<Line>, Refusal> {
        loop {
            let options = newest(PAGE).with_max_create_revision(below - 1).with_revision(at);
            let answer = self.read(prefix, options).await?;
            let found = answer.kvs();
            if let Some(child) = found.iter().find(|other| is_child(prefix, other.key())) {
                return Ok(Some(Line { at, keys: vec![child.key().to_vec()], whole: false }));
            }
            match found.last() {
                Some(last) if answer.more() => below = last.create_revision(),
                _ => return Ok(None),
            }
        }
    }
}
