//! A place in the queue of a directory: the node of a claim, and the claims before it.

use std::sync::Arc;
use std::time::Duration;

use super::error::of_code;
use super::jute::Reader;
use super::keys::{Contending, Dialect, node_name};
use super::orphans::{self, Node};
use super::protocol::{NodeKind, Request, Stat, code};
use super::session::{Refusal, Session};
use super::shared::{ZooKeeper, children, names_of, stat, unreadable};
use super::watch::Watcher;
use crate::contract::RetryHint;
use crate::contract::admission::{Admission, Mode, admit};
use crate::error::Error;
use crate::net::failure::Outcome;
use crate::net::request::Limits;
use crate::timing;

/// The place of a claim.
pub(super) struct Place {
    session: Arc<Session>,
    mode: Mode,
    node: Node,
    /// The transaction that created the node; 0: the node is not known to exist.
    created: i64,
    /// True if the node may exist although its path isn't known.
    in_doubt: bool,
    /// The watch on what has to go before the claim is admitted.
    watcher: Option<Arc<Watcher>>,
}

/// The answer of a look at the queue.
pub(super) enum Look {
    /// The claim is admitted. With the names of the other claims for permits, if it is one.
    Admitted(Vec<String>),
    /// The claim has to wait.
    Behind,
    /// The queue is other than it was: look again at once.
    Again,
}

impl Place {
    /// Returns a place that is not in the queue yet.
    pub(super) fn new(dialect: Dialect, session: &Arc<Session>, directory: &str, mode: Mode) -> Result<Self, Refusal> {
        let guid = format!("{:016x}{:016x}", random()?, random()?);
        let guid = if mutant!("zookeeper-no-guid") { "x".to_owned() } else { guid };
        let name = node_name(dialect, &format!("{guid:0>32}"), mode);
        let node = Node { directory: directory.to_owned(), name, path: None };
        Ok(Self { session: session.clone(), mode, node, created: 0, in_doubt: false, watcher: None })
    }

    /// Returns the path and the creation of the node, if it is known to exist.
    pub(super) fn node(&self) -> Option<(&str, i64)> {
        Some((self.node.path.as_deref()?, self.created))
    }

    pub(super) fn may_exist(&self) -> bool {
        self.node.path.is_some() || self.in_doubt
    }

    /// Returns the hint to go on waiting, if nothing has happened to what this place waits for.
    pub(super) fn undisturbed(&self) -> Option<RetryHint> {
        let watcher = self.watcher.as_ref().filter(|watcher| !watcher.has_fired())?;
        let refresh = self.session.since().plus(timing::session_refresh(self.session.ttl()));
        let after = refresh.left().max(Duration::from_millis(10));
        Some(RetryHint { after, on: Some(Box::pin(watcher.clone().fired())) })
    }

    /// Looks at the queue once. Creates the node first, with this content, if there is none. `wait`: watches what has to
    /// go if the claim isn't admitted.
    pub(super) async fn look(
        &mut self,
        zookeeper: &ZooKeeper,
        data: impl FnOnce() -> Vec<u8>,
        wait: bool,
        limits: Limits,
    ) -> Result<Look, Refusal> {
        if self.undisturbed().is_some() {
            return Ok(Look::Behind);
        }
        self.watcher = None;
        let names = if self.node.path.is_some() {
            Some(children(&self.session, &self.node.directory, false, limits).await?.unwrap_or_default())
        } else if self.in_doubt {
            self.settle(limits).await?;
            None
        } else {
            self.create(zookeeper, data(), limits).await?
        };
        let Some(names) = names else { return Ok(Look::Again) };
        match self.judge(&names) {
            Judged::Admitted(others) => Ok(Look::Admitted(others)),
            Judged::Absent => Ok(Look::Again),
            Judged::Behind(_) if !wait => Ok(Look::Behind),
            Judged::Behind(Some(before)) => self.wait_for(&before, limits).await,
            Judged::Behind(None) => self.wait_for_any(limits).await,
        }
    }

    /// Returns whether the claim is admitted, by the names in the directory.
    fn judge(&mut self, names: &[String]) -> Judged {
        let own = self.node.path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let all: Vec<_> = names.iter().filter_map(|name| Contending::read(name)).collect();
        let Some(own) = all.iter().find(|one| one.name == own) else {
            // Another program has deleted the node: the place is lost.
            self.node.path = None;
            return Judged::Absent;
        };
        let mut ahead: Vec<_> = all.iter().filter(|other| other.is_before(own)).collect();
        ahead.sort_unstable_by_key(|one| one.place(own));
        match admit(self.mode, ahead.iter().map(|one| one.mode)) {
            Admission::Behind(some) if !mutant!("zookeeper-nobody-is-before") => {
                let before = if mutant!("zookeeper-first-watched") { 0 } else { some.start };
                Judged::Behind((some.len() == 1).then(|| ahead[before].name.to_owned()))
            }
            _ => {
                // Those of kazoo's have no slots.
                let has_slots = |one: &&Contending<'_>| {
                    one.number.is_some() && one.name != own.name && matches!(one.mode, Mode::Permits { .. })
                };
                let others: Vec<_> = match self.mode {
                    Mode::Permits { .. } => all.iter().filter(has_slots).map(|one| one.name.to_owned()).collect(),
                    _ => Vec::new(),
                };
                Judged::Admitted(others)
            }
        }
    }

    /// Watches the one node that has to go.
    async fn wait_for(&mut self, before: &str, limits: Limits) -> Result<Look, Refusal> {
        let path = format!("{}/{before}", self.node.directory);
        // Before the request: the event may come at once.
        let watcher = self.session.state().watches.add(&path, None);
        // To read a node that is gone leaves no watch at the server.
        let read = Request::Data { path: path.clone(), watch: true };
        let exists = match self.session.ask(read, limits).await {
            // Another user's, which only shows that it is there.
            Err(refusal) if refusal.failure.outcome == Outcome::NotApplied && !refusal.failure.error.is_temporary() => {
                stat(&self.session, &path, true, limits).await?.is_some()
            }
            reply => reply?.code != code::NO_NODE,
        };
        if !exists {
            drop(watcher);
            self.session.state().watches.tidy(&path);
            return Ok(Look::Again);
        }
        self.watcher = Some(watcher);
        Ok(if self.undisturbed().is_some() { Look::Behind } else { Look::Again })
    }

    /// Watches the directory: any of several nodes may go. One claim for permits does so at a time.
    async fn wait_for_any(&mut self, limits: Limits) -> Result<Look, Refusal> {
        let watcher = self.session.state().watches.add(&self.node.directory, None);
        let names = children(&self.session, &self.node.directory, true, limits).await?.unwrap_or_default();
        match self.judge(&names) {
            Judged::Admitted(others) => Ok(Look::Admitted(others)),
            Judged::Absent => Ok(Look::Again),
            Judged::Behind(_) => {
                self.watcher = Some(watcher);
                Ok(if self.undisturbed().is_some() { Look::Behind } else { Look::Again })
            }
        }
    }

    /// Creates the node, and reads the names in its directory with it. `None`: look again at once.
    async fn create(
        &mut self,
        zookeeper: &ZooKeeper,
        data: Vec<u8>,
        limits: Limits,
    ) -> Result<Option<Vec<String>>, Refusal> {
        let (session, directory) = (self.session.clone(), self.node.directory.clone());
        let path = format!("{directory}/{}", self.node.name);
        let create = Request::Create { path, data, kind: NodeKind::EphemeralSequential, acl: session.acl };
        let list = Request::Children { path: directory.clone(), watch: false };
        // From here on the node may exist, also if this future is dropped.
        self.in_doubt = true;
        let answers = session.ask_each(&[create, list], limits).await;
        let mut answers = answers.inspect_err(|refusal| self.in_doubt = refusal.is_in_doubt())?.into_iter();
        let (Some(created), Some(listed)) = (answers.next(), answers.next()) else { return Ok(None) };
        let created = created.inspect_err(|_| self.in_doubt = false)?;
        if created.code != code::OK {
            self.in_doubt = false;
            if created.code != code::NO_NODE {
                return Err(of_code(created.code, &directory, &session.link.names()).into());
            }
            zookeeper.create_directory(&session, &directory, limits).await?;
            return Ok(None);
        }
        let mut read = Reader::new(&created.body);
        let made = read.text().map(str::to_owned).and_then(|path| Ok((path, Stat::read(&mut read)?)));
        let (path, made) = made.map_err(|why| unreadable(&session, why))?;
        self.adopt(path, made.created);
        names_of(&session, &directory, &listed?, limits).await.map(Some)
    }

    /// Finds the node of a request that had no answer.
    async fn settle(&mut self, limits: Limits) -> Result<(), Refusal> {
        let found = self.node.find(&self.session, limits).await?;
        let Some(path) = found else {
            self.in_doubt = false;
            return Ok(());
        };
        match stat(&self.session, &path, false, limits).await? {
            // That of another session ends with it.
            Some(found)
                if found.session != self.session.state().id() && !mutant!("zookeeper-foreign-node-accepted") =>
            {
                self.in_doubt = false;
            }
            Some(found) => self.adopt(path, found.created),
            None => self.in_doubt = false,
        }
        Ok(())
    }

    /// Notes the path and the creation of the node.
    fn adopt(&mut self, path: String, created: i64) {
        (self.node.path, self.created, self.in_doubt) = (Some(path), created, false);
    }

    /// Notes that the node is deleted.
    pub(super) fn left(&mut self) {
        (self.node.path, self.in_doubt, self.watcher) = (None, false, None);
    }

    /// Deletes the node, or has it deleted in the background if the server refuses that for good.
    pub(super) async fn delete(&mut self, zookeeper: &ZooKeeper, limits: Limits) -> Result<(), Refusal> {
        if !self.may_exist() {
            return Ok(());
        }
        match self.node.delete(&self.session, limits).await {
            Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => {}
            Err(refusal) if refusal.failure.error.is_temporary() => return Err(refusal),
            Err(_) => self.abandon(zookeeper),
            Ok(_) => {}
        }
        self.left();
        Ok(())
    }

    /// Deletes the node in the background, if it may exist: its session may live on for other claims.
    pub(super) fn abandon(&mut self, zookeeper: &ZooKeeper) {
        if self.may_exist() && !self.session.dedicated {
            zookeeper.sessions.retire(&self.session);
            orphans::take_back(self.session.clone(), self.node.clone());
        }
        self.left();
    }
}

/// The place of a claim among the names in its directory.
enum Judged {
    /// As [`Look::Admitted`].
    Admitted(Vec<String>),
    /// It has to wait for this one, or for one of several.
    Behind(Option<String>),
    /// Its node isn't there.
    Absent,
}

fn random() -> Result<u64, Refusal> {
    let none = |_| Refusal::not_applied(Error::unavailable("the system has no source of random numbers"));
    getrandom::u64().map_err(none)
}
