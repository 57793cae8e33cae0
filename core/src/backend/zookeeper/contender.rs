//! A contender: one claim, from its first request to a grant or its withdrawal.

use std::sync::Arc;
use std::time::Duration;

use super::error::of_code;
use super::grant::ZooKeeperGrant;
use super::jute::Reader;
use super::keys::{Contending, node_name};
use super::orphans::{self, Node};
use super::protocol::{NodeKind, Request, Stat, code};
use super::session::{Refusal, Session};
use super::shared::{ZooKeeper, children, stat, unreadable};
use super::watch::Watcher;
use crate::clock::Instant;
use crate::contract::record::record;
use crate::contract::{Attempt, Claim, Contender, RetryHint};
use crate::error::{Error, Result};
use crate::net::failure::Outcome;
use crate::net::request::Limits;
use crate::runtime::BoxFuture;
use crate::timing::{self, patience};

/// The number of requests in a row before a contender pauses.
const LOOKS: u32 = 8;

/// A claim that asks for its lock.
pub(super) struct ZooKeeperContender {
    zookeeper: Arc<ZooKeeper>,
    claim: Claim,
    entry: Option<Entry>,
}

/// The place of a claim in the queue.
struct Entry {
    session: Arc<Session>,
    node: Node,
    /// The transaction that created the node; 0: the node is not known to exist.
    created: i64,
    /// True if the node may exist although its path isn't known.
    in_doubt: bool,
    /// The watch on the node before it.
    watcher: Option<Arc<Watcher>>,
}

impl Entry {
    fn may_exist(&self) -> bool {
        self.node.path.is_some() || self.in_doubt
    }

    /// Notes the path and the creation of the node.
    fn adopt(&mut self, path: String, created: i64) {
        (self.node.path, self.created, self.in_doubt) = (Some(path), created, false);
    }
}

impl ZooKeeperContender {
    pub(super) fn new(zookeeper: Arc<ZooKeeper>, claim: Claim) -> Self {
        Self { zookeeper, claim, entry: None }
    }

    fn directory(&self) -> &str {
        &self.claim.options.name
    }

    /// Tries once.
    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let end = Instant::now().plus(budget);
        for _ in 0..LOOKS {
            let limits = Limits { patience: patience(self.claim.options.ttl), budget: end.left() };
            match self.look(limits).await {
                Ok(Some(attempt)) => return Ok(attempt),
                Ok(None) => {}
                Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => {
                    // The node has ended with its session.
                    self.entry = None;
                    if end.passed() {
                        return Err(refusal.into());
                    }
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(Attempt::Busy(RetryHint { after: Duration::from_millis(fastrand::u64(5..=15)), on: None }))
    }

    /// Asks once. `None`: ask again at once.
    async fn look(&mut self, limits: Limits) -> Result<Option<Attempt>, Refusal> {
        self.ensure_entry(limits).await?;
        let directory = self.claim.options.name.clone();
        let Some(entry) = &mut self.entry else { return Ok(None) };
        if let Some(hint) = entry.undisturbed() {
            return Ok(Some(Attempt::Busy(hint)));
        }
        entry.watcher = None;
        let names = if entry.node.path.is_some() {
            Some(children(&entry.session, &directory, limits).await?.unwrap_or_default())
        } else if entry.in_doubt {
            Self::settle(entry, limits).await?;
            return Ok(None);
        } else {
            let (zookeeper, data) = (&self.zookeeper, record(&self.claim));
            Self::create(zookeeper, entry, data, limits).await?
        };
        let (Some(names), Some(path)) = (names, entry.node.path.clone()) else { return Ok(None) };
        let own = path.rsplit('/').next().unwrap_or_default();
        let all: Vec<_> = names.iter().filter_map(|name| Contending::read(name)).collect();
        let Some(own) = all.iter().find(|one| one.name == own) else {
            // Another program has deleted the node: the place is lost.
            entry.node.path = None;
            return Ok(None);
        };
        let ahead = all.iter().filter(|other| other.is_before(own));
        let last = ahead.max_by_key(|one| one.place(own));
        let Some(last) = last.filter(|_| !mutant!("zookeeper-nobody-is-before")) else {
            return Ok(self.granted());
        };
        if !self.claim.wait {
            return Ok(Some(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None })));
        }
        let before = format!("{directory}/{}", last.name);
        let watcher = entry.session.state().watches.add(&before, None);
        if stat(&entry.session, &before, true, limits).await?.is_none() {
            // A watch on a node that doesn't exist tells of its creation.
            entry.session.state().watches.tidy(&before);
            return Ok(None);
        }
        entry.watcher = Some(watcher);
        Ok(entry.undisturbed().map(Attempt::Busy))
    }

    /// Makes sure that the claim has a session that lives, and a name for its node.
    async fn ensure_entry(&mut self, limits: Limits) -> Result<(), Refusal> {
        if let Some(entry) = &self.entry {
            let session = &entry.session;
            // A dedicated session has nearly its whole ttl at the grant.
            let limit = if session.dedicated { timing::dedicated_limit } else { timing::session_refresh };
            let age = limit(session.ttl());
            let lives =
                !session.is_older_than(age) || Box::pin(session.keep_alive(limits, Instant::now().minus(age))).await?;
            if lives {
                return Ok(());
            }
            self.entry = None;
        }
        let options = &self.claim.options;
        let session = self.zookeeper.sessions.pick(options.ttl, !options.auto_renew, limits).await?;
        let guid = format!("{:016x}{:016x}", random()?, random()?);
        let name = if mutant!("zookeeper-no-guid") { "x".to_owned() } else { guid };
        let name = node_name(self.zookeeper.dialect, &format!("{name:0>32}"));
        let node = Node { directory: self.directory().to_owned(), name, path: None };
        self.entry = Some(Entry { session, node, created: 0, in_doubt: false, watcher: None });
        Ok(())
    }

    /// Creates the node, and reads the names in its directory with it. `None`: ask again at once.
    async fn create(
        zookeeper: &ZooKeeper,
        entry: &mut Entry,
        data: Vec<u8>,
        limits: Limits,
    ) -> Result<Option<Vec<String>>, Refusal> {
        let (session, directory) = (entry.session.clone(), entry.node.directory.clone());
        let path = format!("{directory}/{}", entry.node.name);
        let create = Request::Create { path, data, kind: NodeKind::EphemeralSequential, acl: session.acl };
        let list = Request::Children { path: directory.clone() };
        // From here on the node may exist, also if this future is dropped.
        entry.in_doubt = true;
        let replies = session.ask_all(&[create, list], limits).await;
        let replies = replies.inspect_err(|refusal| entry.in_doubt = refusal.is_in_doubt())?;
        let [created, listed] = &replies[..] else { return Ok(None) };
        if created.code != code::OK {
            entry.in_doubt = false;
            if created.code != code::NO_NODE {
                return Err(of_code(created.code, &directory, &session.link.names()).into());
            }
            zookeeper.create_directory(&session, &directory, limits).await?;
            return Ok(None);
        }
        let mut read = Reader::new(&created.body);
        let made = read.text().map(str::to_owned).and_then(|path| Ok((path, Stat::read(&mut read)?)));
        let (path, made) = made.map_err(|why| unreadable(&session, why))?;
        entry.adopt(path, made.created);
        Reader::new(&listed.body).texts().map(Some).map_err(|why| unreadable(&session, why))
    }

    /// Finds the node of a request that had no answer.
    async fn settle(entry: &mut Entry, limits: Limits) -> Result<(), Refusal> {
        let found = entry.node.find(&entry.session, limits).await?;
        let Some(path) = found else {
            entry.in_doubt = false;
            return Ok(());
        };
        match stat(&entry.session, &path, false, limits).await? {
            // That of another session ends with it.
            Some(found)
                if found.session != entry.session.state().id() && !mutant!("zookeeper-foreign-node-accepted") =>
            {
                entry.in_doubt = false;
            }
            Some(found) => entry.adopt(path, found.created),
            None => entry.in_doubt = false,
        }
        Ok(())
    }

    /// Returns the grant, which takes over the node.
    fn granted(&mut self) -> Option<Attempt> {
        let entry = self.entry.take()?;
        let (since, ttl) = (entry.session.since(), entry.session.ttl());
        let held = ZooKeeperGrant::new(&self.zookeeper, &self.claim, entry.session, entry.node, entry.created);
        Some(Attempt::Granted { grant: Arc::new(held?), since, ttl })
    }

    /// Deletes the node.
    async fn delete_entry(&mut self) -> Result<()> {
        let Some(entry) = &self.entry else { return Ok(()) };
        if !entry.may_exist() {
            return Ok(());
        }
        let limits = self.zookeeper.sessions.limits(patience(self.claim.options.ttl));
        if entry.session.dedicated {
            // The end of the session deletes the node, and none can be created later.
            return Ok(entry.session.close(limits).await?);
        }
        match entry.node.delete(&entry.session, limits).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => Ok(()),
            Err(refusal) if refusal.failure.error.is_temporary() => Err(refusal.into()),
            // Refused for good: the caller need not wait.
            Err(_) => {
                self.zookeeper.sessions.retire(&entry.session);
                orphans::take_back(entry.session.clone(), entry.node.clone());
                Ok(())
            }
        }
    }
}

impl Entry {
    /// Returns the hint to go on waiting, if nothing has happened to the node before this one.
    fn undisturbed(&self) -> Option<RetryHint> {
        let watcher = self.watcher.as_ref().filter(|watcher| !watcher.has_fired())?;
        let refresh = self.session.since().plus(timing::session_refresh(self.session.ttl()));
        let after = refresh.left().max(Duration::from_millis(10));
        Some(RetryHint { after, on: Some(Box::pin(watcher.clone().fired())) })
    }
}

fn random() -> Result<u64, Refusal> {
    let none = |_| Refusal::not_applied(Error::unavailable("the system has no source of random numbers"));
    getrandom::u64().map_err(none)
}

/// Deletes in the background the node that could not be deleted in time: its session may live on for other claims.
impl Drop for ZooKeeperContender {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take().filter(|entry| entry.may_exist() && !entry.session.dedicated) {
            self.zookeeper.sessions.retire(&entry.session);
            orphans::take_back(entry.session, entry.node);
        }
    }
}

impl Contender for ZooKeeperContender {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.delete_entry().await?;
            self.entry = None;
            Ok(())
        })
    }
}

impl std::fmt::Debug for ZooKeeperContender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZooKeeperContender").field("claim", &self.claim).finish_non_exhaustive()
    }
}
