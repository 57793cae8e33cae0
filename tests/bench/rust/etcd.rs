//! The bare calls of the etcd crate in the layout of etcd's own mutex: a key below the lock's name, with a lease made before.

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, KvClient, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, WatchFilterType, WatchOptions, WatchStream,
};

use crate::Outcome;
use crate::base::{self, Alone, Pair};
use crate::calls::place;

/// Seconds: longer than any slice.
const TTL: i64 = 600;

/// One connection and a lease, for as many tasks as have a clone of it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    kv: KvClient,
    pub(crate) lease: i64,
}

impl base::Session for Session {
    async fn open(url: &str) -> Outcome<Self> {
        let client = Client::connect([place(url)], None).await?;
        let lease = client.lease_client().grant(TTL, None).await?.id();
        Ok(Self { kv: client.kv_client(), client, lease })
    }

    async fn take(&mut self, name: &str) -> Outcome<()> {
        match self.enter(name).await? {
            (_, None) => Ok(()),
            (_, Some(_)) => Err("the lock was taken".into()),
        }
    }

    async fn give(&mut self, name: &str) -> Outcome<()> {
        match self.kv.delete(self.key(name), None).await?.deleted() {
            1 => Ok(()),
            _ => Err("the key wasn't there".into()),
        }
    }
}

impl Session {
    fn key(&self, name: &str) -> Vec<u8> {
        format!("{name}/{:x}", self.lease).into_bytes()
    }

    /// Puts the key; gives its revision and the key before it.
    async fn enter(&mut self, name: &str) -> Outcome<(i64, Option<Vec<u8>>)> {
        let key = self.key(name);
        let put = TxnOp::put(key.clone(), "", Some(PutOptions::new().with_lease(self.lease)));
        let request = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([put, TxnOp::get(format!("{name}/"), Some(newest().with_limit(2)))]);
        let answer = self.kv.txn(request).await?;
        let revision = answer.header().ok_or("no header")?.revision();
        if !answer.succeeded() {
            return Err("the key was there".into());
        }
        match answer.op_responses().get(1) {
            Some(TxnOpResponse::Get(found)) => {
                Ok((revision, found.kvs().iter().map(|kv| kv.key().to_vec()).find(|other| *other != key)))
            }
            other => Err(format!("the read got {other:?}").into()),
        }
    }

    /// Sees that the key of this revision is there; gives the one before it.
    async fn before(&mut self, name: &str, revision: i64) -> Outcome<Option<Vec<u8>>> {
        let older = newest().with_limit(1).with_max_create_revision(revision - 1);
        let request =
            Txn::new().and_then([TxnOp::get(self.key(name), None), TxnOp::get(format!("{name}/"), Some(older))]);
        match self.kv.txn(request).await?.op_responses().as_slice() {
            [TxnOpResponse::Get(own), TxnOpResponse::Get(older)] if own.count() == 1 => {
                Ok(older.kvs().first().map(|kv| kv.key().to_vec()))
            }
            other => Err(format!("the look got {other:?}").into()),
        }
    }
}

fn newest() -> GetOptions {
    GetOptions::new().with_prefix().with_keys_only().with_sort(SortTarget::Create, SortOrder::Descend)
}

/// One contender of many: a watcher for the lock, from "now" and there before anything is read.
pub(crate) struct Handover {
    alone: Alone<Session>,
    deletions: WatchStream,
}

impl Handover {
    pub(crate) fn new(url: &str, name: &str) -> Outcome<Self> {
        let alone = Alone::new(url, name)?;
        let deletions = alone.runtime.block_on(watched(&alone.session, name))?;
        Ok(Self { alone, deletions })
    }
}

async fn watched(session: &Session, name: &str) -> Outcome<WatchStream> {
    let options = WatchOptions::new().with_prefix().with_filters([WatchFilterType::NoPut]);
    let mut deletions = session.client.watch_client().watch(format!("{name}/"), Some(options)).await?;
    match deletions.message().await? {
        Some(response) if response.created() => Ok(deletions),
        other => Err(format!("the watch got {other:?}").into()),
    }
}

impl Pair for Handover {
    fn take(&mut self) -> Outcome<()> {
        let Alone { runtime, session, name } = &mut self.alone;
        runtime.block_on(async {
            let (revision, mut before) = session.enter(name).await?;
            while let Some(key) = before {
                deleted(&mut self.deletions, &key, revision).await?;
                before = session.before(name, revision).await?;
            }
            Ok(())
        })
    }

    fn give(&mut self) -> Outcome<()> {
        self.alone.give()
    }
}

/// Waits until this key is deleted, later than at this revision.
async fn deleted(deletions: &mut WatchStream, key: &[u8], revision: i64) -> Outcome<()> {
    loop {
        let response = deletions.message().await?.ok_or("the watch has ended")?;
        let of_key = response.events().iter().filter(|event| event.event_type() == EventType::Delete);
        if of_key.filter_map(|event| event.kv()).any(|kv| kv.key() == key && kv.mod_revision() > revision) {
            return Ok(());
        }
    }
}
