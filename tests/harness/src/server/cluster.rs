//! Several etcds that form a cluster, each with a proxy before it that the others go through.

use std::time::{Duration, Instant};

use super::{Etcd, EtcdOptions};
use crate::proxy::{Action, Direction, Mode, Proxy};

/// How long an election may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running cluster. Clients go to the members themselves.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Etcd>,
    ids: Vec<String>,
    peers: Vec<Proxy>,
}

impl Cluster {
    /// Starts so many, and waits until they serve.
    ///
    /// # Errors
    /// As for [`Etcd::start`], and when there is no proxy to be had.
    pub fn start(count: usize, options: &EtcdOptions) -> Result<Self, String> {
        let nowhere = ([127, 0, 0, 1], 1).into();
        let peers = (0..count).map(|_| Proxy::new(nowhere)).collect::<Result<Vec<_>, _>>();
        let peers = peers.map_err(|error| error.to_string())?;
        let before = |n: usize, peer| {
            peers[n].set_upstream(peer);
            peers[n].addr()
        };
        let members = Etcd::behind(count, options, before)?;
        let ids = members.iter().map(Etcd::id).collect();
        Ok(Self { members, ids, peers })
    }

    /// Which one leads. Waits until there is exactly one that says so.
    ///
    /// # Panics
    /// When there is none for long, or a member doesn't answer.
    pub fn leader(&self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            let leading: Vec<_> = (0..self.members.len()).filter(|at| self.members[*at].leads()).collect();
            if let [leader] = leading[..] {
                return leader;
            }
            assert!(Instant::now() < end, "within {PATIENCE:?} there was no leader");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Cuts a member off from the others, which have each other; clients still reach it.
    pub fn isolate(&self, at: usize) {
        for (n, proxy) in self.peers.iter().enumerate() {
            if n == at {
                proxy.both(Mode::Drop);
            } else {
                // Each request between members begins with whose it is.
                proxy.rule(Direction::ToServer, format!("X-Server-From: {}", self.ids[at]), .., Action::CutBefore);
            }
        }
        self.cut();
    }

    /// Ends what [`isolate`](Self::isolate) began.
    pub fn rejoin(&self) {
        // Of a connection that has lost bytes nothing can be made any more.
        self.cut();
        for proxy in &self.peers {
            proxy.clear_rules();
            proxy.both(Mode::Pass);
        }
    }

    fn cut(&self) {
        for proxy in &self.peers {
            proxy.cut();
        }
    }

    /// Has a member lead.
    ///
    /// # Errors
    /// What etcdctl complains of.
    ///
    /// # Panics
    /// As for [`leader`](Self::leader).
    pub fn lead(&self, at: usize) -> Result<(), String> {
        self.members[self.leader()].try_ctl(&["move-leader", &self.ids[at]]).map(drop)
    }
}
