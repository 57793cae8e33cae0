//! What is done to the members of an etcd cluster, and to its keys.

use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};

use dlock_harness::server::{Cluster, Etcd};

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
    let all: [(_, _, Act, Act); 8] = [
        ("leader-kill", Role::Leader, kill, restart),
        ("follower-kill", Role::Follower, kill, restart),
        ("leader-pause", Role::Leader, pause, resume),
        ("leader-isolated", Role::Leader, isolate, rejoin),
        ("follower-isolated", Role::Follower, isolate, rejoin),
        (MOVE, Role::Follower, |cluster, at| cluster.lead(at), nothing),
        (COMPACTION, Role::Leader, compact, nothing),
        (REMOVAL, Role::Follower, |cluster, at| remove_waiter(&cluster.members[at]), nothing),
    ];
    let fault = |(name, role, begin, end)| OfMember { name, role, begin, end, tested: tested.clone(), at: 0 };
    all.into_iter().map(|one| Box::new(fault(one)) as Box<dyn Nemesis>).collect()
}

const MOVE: &str = "leader-move";
const COMPACTION: &str = "compaction";
pub(crate) const REMOVAL: &str = "waiter-removed";

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

/// Deletes the key of one that waits, if there is one, and never that of a holder: whoever came before it still has to be
/// there.
pub(crate) fn remove_waiter(etcd: &Etcd) -> Result<(), String> {
    let said = etcd.try_ctl(&["get", "soak-", "--prefix", "--keys-only", "--sort-by", "CREATE", "-w", "fields"])?;
    let field = |name: &str| -> Vec<_> {
        let lines = said.lines().filter_map(|line| line.strip_prefix(&format!("\"{name}\" : ")));
        lines.map(|value| value.trim_matches('"').to_owned()).collect()
    };
    let keys: Vec<_> = field("Key").into_iter().zip(field("CreateRevision")).collect();
    let lock = |key: &(String, String)| key.0.rsplit_once('/').map(|(lock, _)| lock.to_owned());
    let mut waiting = keys.iter().enumerate().filter_map(|(n, waiter)| {
        let first = keys[..n].iter().find(|first| lock(first) == lock(waiter))?;
        Some((first, waiter))
    });
    let Some(((first, revision), (waiter, _))) = waiting.next_back() else { return Ok(()) };
    let mut line = etcd.ctl_line(&["txn"]);
    let mut child = line.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let order = format!("create(\"{first}\") = \"{revision}\"\n\ndel \"{waiter}\"\n\n\n");
    // Whether it read everything shows in how it ends.
    let _ = child.stdin.take().map(|mut input| input.write_all(order.as_bytes()));
    let ended = child.wait().map_err(|error| error.to_string())?;
    if ended.success() { Ok(()) } else { Err(format!("etcdctl txn ended with {ended}")) }
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
        [MOVE, COMPACTION, REMOVAL].contains(&self.name)
    }
}
