//! The bare calls of the ZooKeeper crate in the layout of kazoo's lock: a node with a number, below the lock's directory.

use std::time::Duration;

use zookeeper_client::{Acls, Client, CreateMode, Error};

use crate::Outcome;
use crate::base::{self, Alone, Pair};
use crate::calls::place;

/// What a server makes the longest timeout of it: longer than any slice.
const TIMEOUT: Duration = Duration::from_secs(600);
const MARK: &str = "__lock__";
/// As much as a claim of ours says of itself.
const DATA: &[u8] = &[b'x'; 64];

/// A session, and the node that was created last. Clones share the session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    node: String,
}

impl base::Session for Session {
    async fn open(url: &str) -> Outcome<Self> {
        let client = Client::connector().with_session_timeout(TIMEOUT).connect(place(url)).await?;
        Ok(Self { client, node: String::new() })
    }

    async fn take(&mut self, name: &str) -> Outcome<()> {
        match self.enter(name).await? {
            None => Ok(()),
            Some(_) => Err("the lock was taken".into()),
        }
    }

    /// Deletes the node that was created last.
    async fn give(&mut self, _: &str) -> Outcome<()> {
        Ok(self.client.delete(&self.node, None).await?)
    }
}

impl Session {
    /// Creates the node, and lists the directory behind that; gives the node before it.
    async fn enter(&mut self, name: &str) -> Outcome<Option<String>> {
        let prefix = format!("/raw/{name}/{:032x}{MARK}", self.client.session_id().0);
        let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        loop {
            // Both are sent before the first answer.
            let (created, listed) =
                (self.client.create(&prefix, DATA, &options), self.client.list_children(name_of(&prefix).0));
            match created.await {
                Ok((_, number)) => {
                    let names = listed.await?;
                    self.node = format!("{prefix}{number}");
                    return before(&self.node, names);
                }
                Err(Error::NoNode) => {
                    let parent = CreateMode::Persistent.with_acls(Acls::anyone_all());
                    self.client.mkdir(name_of(&prefix).0, &parent).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The directory and the name of a node.
fn name_of(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or_default()
}

/// The path of the node before this one, of all names in the directory.
fn before(node: &str, names: Vec<String>) -> Outcome<Option<String>> {
    let number = |name: &str| name.rsplit_once(MARK)?.1.parse::<i32>().ok();
    let (directory, own) = name_of(node);
    let own = number(own).ok_or("the node has no number")?;
    let numbers: Vec<_> = names.iter().filter_map(|name| Some((number(name)?, name))).collect();
    if numbers.iter().all(|(number, _)| *number != own) {
        return Err("the node isn't there".into());
    }
    let before = numbers.iter().filter(|(number, _)| *number < own).max();
    Ok(before.map(|(_, name)| format!("{directory}/{name}")))
}

/// One contender of many: it watches the node before its own.
pub(crate) struct Handover(Alone<Session>);

impl Handover {
    pub(crate) fn new(url: &str, name: &str) -> Outcome<Self> {
        Alone::new(url, name).map(Self)
    }
}

impl Pair for Handover {
    fn take(&mut self) -> Outcome<()> {
        let Alone { runtime, session, name } = &mut self.0;
        runtime.block_on(async {
            let mut ahead = session.enter(name).await?;
            while let Some(node) = ahead {
                if let (Some(_), watcher) = session.client.check_and_watch_stat(&node).await? {
                    watcher.changed().await;
                }
                ahead = before(&session.node, session.client.list_children(name_of(&session.node).0).await?)?;
            }
            Ok(())
        })
    }

    fn give(&mut self) -> Outcome<()> {
        self.0.give()
    }
}
