//! What is done to the members of an etcd cluster.

use std::sync::{Arc, Mutex, MutexGuard};

use dlock_harness::server::Cluster;

use crate::fleet::Fleet;
use crate::nemesis::{Nemesis, locked};
use crate::server::Tested;

/// Does or undoes a fault of the n-th member.
type Act = fn(&mut Cluster, usize) -> Result<(), String>;

#[derive(Clone, Copy)]
enum Role {
    Leader,
    Follower,
}

pub(crate) fn faults(tested: &Arc<Tested>) -> Vec<Box<dyn Nemesis>> {
    let all: [(_, _, Act, Act); 7] = [
        ("leader-kill", Role::Leader, kill, restart),
        ("follower-kill", Role::Follower, kill, restart),
        ("leader-pause", Role::Leader, pause, resume),
        ("leader-isolated", Role::Leader, isolate, rejoin),
        ("follower-isolated", Role::Follower, isolate, rejoin),
        (MOVE, Role::Follower, |cluster, at| cluster.lead(at), nothing),
        (COMPACTION, Role::Leader, compact, nothing),
    ];
    let fault = |(name, role, begin, end)| OfMember { name, role, begin, end, tested: tested.clone(), at: 0 };
    all.into_iter().map(|one| Box::new(fault(one)) as Box<dyn Nemesis>).collect()
}

const MOVE: &str = "leader-move";
const COMPACTION: &str = "compaction";

fn kill(cluster: &mut Cluster, at: usize) -> Result<(), String> {
    cluster.members[at].kill();
    Ok(())
}

fn restart(cluster: &mut Cluster, at: usize) -> Result<(), String> {
    cluster.members[at].restart()
}

fn pause(cluster: &mut Cluster, at: usize) -> Result<(), String> {
    cluster.members[at].pause();
    Ok(())
}

fn resume(cluster: &mut Cluster, at: usize) -> Result<(), String> {
    cluster.members[at].resume();
    Ok(())
}

fn isolate(cluster: &mut Cluster, at: usize) -> Result<(), String> {
    cluster.isolate(at);
    Ok(())
}

fn rejoin(cluster: &mut Cluster, _: usize) -> Result<(), String> {
    cluster.rejoin();
    Ok(())
}

fn compact(cluster: &mut Cluster, at: usize) -> Result<(), String> {
    cluster.members[at].compact();
    Ok(())
}

fn nothing(_: &mut Cluster, _: usize) -> Result<(), String> {
    Ok(())
}

/// Something done to one member.
struct OfMember {
    name: &'static str,
    role: Role,
    begin: Act,
    end: Act,
    tested: Arc<Tested>,
    at: usize,
}

impl OfMember {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        match &*self.tested {
            Tested::Cluster(cluster) => locked(cluster),
            _ => unreachable!("these faults are made for a cluster"),
        }
    }
}

impl Nemesis for OfMember {
    fn name(&self) -> &'static str {
        self.name
    }

    fn choose(&mut self, _: &Fleet, rng: &mut fastrand::Rng) -> Result<String, String> {
        let cluster = self.cluster();
        let (leader, many) = (cluster.leader()?, cluster.members.len());
        drop(cluster);
        self.at = match self.role {
            Role::Leader => leader,
            Role::Follower => (leader + rng.usize(1..many)) % many,
        };
        Ok(format!("m{}", self.at))
    }

    fn begin(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        (self.begin)(&mut self.cluster(), self.at)
    }

    fn end(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        (self.end)(&mut self.cluster(), self.at)
    }

    fn is_short(&self) -> bool {
        [MOVE, COMPACTION].contains(&self.name)
    }
}
