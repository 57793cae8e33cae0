//! Several etcds that form a cluster, each with a proxy before it that the others go through.

use std::time::{Duration, Instant};

use super::etcdctl::LEADS;
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
    /// # Errors
    /// When that doesn't come about, or a member doesn't answer.
    pub fn leader(&self) -> Result<usize, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let told: Result<Vec<_>, _> = self.members.iter().map(|member| member.try_figure(LEADS)).collect();
            let told = told?;
            let mut leading = (0..told.len()).filter(|at| told[*at] > 0.5);
            if let (Some(leader), None) = (leading.next(), leading.next()) {
                return Ok(leader);
            }
            if Instant::now() >= end {
                return Err(format!("within {PATIENCE:?} there was not one leader: {told:?}"));
            }
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
    /// As for [`leader`](Self::leader), and what etcdctl complains of.
    pub fn lead(&self, at: usize) -> Result<(), String> {
        self.members[self.leader()?].try_ctl(&["move-leader", &self.ids[at]]).map(drop)
    }
}
