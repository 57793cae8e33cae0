//! A cluster of several etcds. Each has a proxy before it, through which the other members reach it.

use std::time::{Duration, Instant};

use super::etcdctl::LEADS;
use super::{Etcd, EtcdOptions};
use crate::proxy::{Action, Direction, Mode, Proxy};

/// The time that an election may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running cluster. Clients connect to the members without a proxy.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Etcd>,
    ids: Vec<String>,
    peers: Vec<Proxy>,
}

impl Cluster {
    /// Starts so many members and waits until they serve.
    ///
    /// # Errors
    /// As for [`Etcd::start`], and if a proxy can't be started.
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

    /// Returns the index of the leader. Waits until exactly one member reports that it leads.
    ///
    /// # Errors
    /// If that doesn't happen, or a member doesn't answer.
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

    /// Cuts a member off from the others. The others still reach each other, and clients still reach the member.
    pub fn isolate(&self, at: usize) {
        for (n, proxy) in self.peers.iter().enumerate() {
            if n == at {
                proxy.both(Mode::Drop);
            } else {
                // Each request between members begins with the id of its sender.
                proxy.rule(Direction::ToServer, format!("X-Server-From: {}", self.ids[at]), .., Action::CutBefore);
            }
        }
        self.cut();
    }

    /// Ends the isolation by [`isolate`](Self::isolate).
    pub fn rejoin(&self) {
        // A connection that has lost bytes can't be used any more.
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

    /// Makes a member the leader.
    ///
    /// # Errors
    /// As for [`leader`](Self::leader), and the errors of etcdctl.
    pub fn lead(&self, at: usize) -> Result<(), String> {
        self.members[self.leader()?].try_ctl(&["move-leader", &self.ids[at]]).map(drop)
    }
}
