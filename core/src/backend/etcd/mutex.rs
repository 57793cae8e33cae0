//! What is asked of the server about one lock, and how its answers are read.

use std::sync::Arc;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::error::Failure;
use super::floors::Floors;
use super::keys::{after, is_child, range, told};
use super::link::{Answer, Limits, Link, Refusal, Unanswered};
use crate::error::Error;

/// How many keys are read at a time where longer names may be among them.
const PAGE: i64 = 4096;
/// How many of them a try is told of.
const NEW: i64 = 64;
/// How often a try is repeated where nothing but keys of longer names are in its way.
const TRIES: usize = 3;
/// The longest answer that is taken. None is asked for that would come near it.
const ANSWER: usize = 64 << 20;
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
    pub(super) floors: &'a Floors,
    /// How many connections had been made when it began: what was known of the floors then counts while there is no other.
    pub(super) made: u64,
}

pub(super) async fn txn(link: &Arc<Link>, limits: Limits, txn: &Txn) -> Result<Answer<TxnResponse>, Refusal> {
    link.ask(limits, |conn| {
        let txn = txn.clone();
        async move { conn.client.kv_client().max_decoding_message_size(ANSWER).txn(txn).await }
    })
    .await
}

/// Reads a key, or a range of them.
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

/// Deletes the key if it is still the one of this revision; 0: the one that has this value. Says whether it was.
pub(super) async fn leave(
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

fn placed(rev: i64, line: Option<Line>) -> Seen {
    match line {
        Some(line) => Seen::Behind { rev, line },
        None => Seen::First { rev },
    }
}

impl Asker<'_> {
    /// Takes a free lock; queues nowhere.
    pub(super) async fn take(&self, lease: i64) -> Result<(Seen, Unanswered), Refusal> {
        let (from, to) = range(self.name);
        let mut unanswered = Unanswered::new();
        for _ in 0..TRIES {
            let floor = self.floor();
            let free = match floor {
                0 => Compare::create_revision(from.clone(), CompareOp::Equal, 0),
                // Of what is older nothing is in the way.
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
                return Ok((placed(rev, self.believed(floor, rev).await?), unanswered));
            }
            if let Some(own) = read(&answer.value, 0)?.kvs().first() {
                return Ok((self.found(own, rev).await?, unanswered));
            }
            if self.line(&read(&answer.value, 1)?, rev + 1, rev).await?.is_some() {
                return Ok((Seen::Absent, unanswered));
            }
            // Only locks of longer names are in the way.
        }
        let (seen, more) = self.enter(lease).await?;
        unanswered.extend(more);
        Ok((seen, unanswered))
    }

    /// Takes the lock, or a place in the queue.
    pub(super) async fn enter(&self, lease: i64) -> Result<(Seen, Unanswered), Refusal> {
        let floor = self.floor();
        let absent = Compare::create_revision(self.key, CompareOp::Equal, 0);
        let request = Txn::new()
            .when([absent])
            .and_then([self.put(lease), TxnOp::get(range(self.name).0, Some(self.newest(AHEAD + 1, floor)))])
            .or_else([TxnOp::get(self.key, None)]);
        let answer = txn(self.link, self.limits, &request).await?;
        let rev = revision(&answer.value)?;
        let seen = if answer.value.succeeded() {
            let line = match self.believed(floor, rev).await? {
                None => self.line(&read(&answer.value, 1)?, rev, rev).await?,
                line => line,
            };
            placed(rev, line)
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
        let floor = self.floor().min(rev);
        let answer = self.read(AHEAD + 1, floor, |options| options.with_max_create_revision(rev)).await?;
        let at = answer.header().map(etcd_client::ResponseHeader::revision).ok_or_else(unexpected)?;
        let own = answer.kvs().iter().any(|own| own.key() == self.key && own.create_revision() == rev);
        if !own && !mutant!("etcd-own-key-not-checked") {
            return Ok(Seen::Absent);
        }
        Ok(placed(rev, self.line(&answer, rev, at).await?))
    }

    /// The newest keys where those of the contenders are, none older than the floor.
    fn newest(&self, limit: i64, floor: i64) -> GetOptions {
        let options = GetOptions::new().with_range(range(self.name).1).with_keys_only().with_limit(limit);
        options.with_sort(SortTarget::Create, SortOrder::Descend).with_min_create_revision(floor)
    }

    /// Reads these; without the floor where the answer may be that of a cluster for which it isn't known.
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

    fn is_connected_as_before(&self) -> bool {
        self.link.made() == self.made
    }

    /// No contender's key is older; 0: nothing is known.
    fn floor(&self) -> i64 {
        if self.is_connected_as_before() { self.floors.of(self.made, self.name) } else { 0 }
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
        Ok(placed(rev, self.older(rev, at).await?))
    }

    /// Who is before our key of this revision though a floor says that nobody is older: a cluster that was restored has
    /// gone back behind it, and has perhaps gone on past it.
    async fn believed(&self, floor: i64, rev: i64) -> Result<Option<Line>, Refusal> {
        if floor == 0 || floor <= rev && self.is_connected_as_before() {
            return Ok(None);
        }
        self.floors.forget(self.name);
        self.older(rev, rev).await
    }

    /// The contenders older than `below`, as of this revision.
    async fn older(&self, below: i64, at: i64) -> Result<Option<Line>, Refusal> {
        let of = |options: GetOptions| options.with_max_create_revision(below - 1).with_revision(at);
        let answer = self.read(AHEAD, self.floor(), of).await?;
        self.line(&answer, below, at).await
    }

    /// The other contenders among these, which are the newest of those older than `below`, as of this revision.
    async fn line(&self, found: &GetResponse, below: i64, at: i64) -> Result<Option<Line>, Refusal> {
        let others = found.kvs().iter().map(KeyValue::key).filter(|key| *key != self.key);
        let keys: Vec<_> = others.clone().filter(|key| is_child(self.name, key)).map(<[u8]>::to_vec).collect();
        if !keys.is_empty() {
            return Ok(Some(Line { at, keys, whole: !found.more() }));
        }
        let line = if found.more() { Box::pin(self.scan(below, at)).await? } else { None };
        if line.is_none() && others.count() > 0 {
            // What is there belongs to longer names, and whoever comes later is not older.
            self.floors.raise(self.made, self.name, below);
        }
        Ok(line)
    }

    /// The contenders older than `below`, as of this revision, among however many keys of longer names.
    async fn scan(&self, below: i64, at: i64) -> Result<Option<Line>, Refusal> {
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
        let whole = found.len() <= ahead;
        let keys: Vec<_> = found.into_iter().take(ahead).map(|(_, key)| key).collect();
        Ok((!keys.is_empty()).then_some(Line { at, keys, whole }))
    }
}
