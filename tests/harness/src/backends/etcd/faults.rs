//! The faults that the soak test injects into an etcd or the members of a cluster, and into their keys.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Cluster, Etcd, EtcdOptions};
use crate::backends::deployed::{Act, OfServer};
use crate::backends::{Deployed, ServerFault, TestServer};

/// A function that begins or ends a fault of the n-th member.
type ActOn = fn(&mut Cluster, usize) -> Result<(), String>;

#[derive(Clone, Copy)]
enum Role {
    Leader,
    Follower,
}

pub(super) fn alone() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(Etcd::start(&EtcdOptions::new())?))
}

pub(super) fn three() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(Members(Mutex::new(Cluster::start(3, &EtcdOptions::new())?))))
}

fn url(addrs: &[SocketAddr]) -> String {
    format!("etcd://{}", addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

impl Deployed for Etcd {
    fn addrs(&self) -> Vec<SocketAddr> {
        vec![self.addr()]
    }

    fn url(&self, addrs: &[SocketAddr]) -> String {
        url(addrs)
    }

    fn version(&self) -> Option<String> {
        Some(format!("etcd {}", self.version()))
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        let all: [(_, _, Act<Self>, Act<Self>); 3] = [
            (
                "server-pause",
                false,
                |etcd| {
                    etcd.pause();
                    Ok(())
                },
                |etcd| {
                    etcd.resume();
                    Ok(())
                },
            ),
            (
                "compaction",
                true,
                |etcd| {
                    etcd.compact();
                    Ok(())
                },
                |_| Ok(()),
            ),
            ("waiter-removed", true, remove_waiter, |_| Ok(())),
        ];
        let fault = |(name, is_short, begin, end)| OfServer { name, is_short, begin, end, server: self.clone() };
        all.into_iter().map(|one| Box::new(fault(one)) as Box<dyn ServerFault>).collect()
    }
}

/// The members of a cluster.
struct Members(Mutex<Cluster>);

impl Members {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deployed for Members {
    fn addrs(&self) -> Vec<SocketAddr> {
        self.cluster().members.iter().map(Etcd::addr).collect()
    }

    fn url(&self, addrs: &[SocketAddr]) -> String {
        url(addrs)
    }

    fn version(&self) -> Option<String> {
        Some(format!("etcd {}", self.cluster().members[0].version()))
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        let all: [(_, _, _, ActOn, ActOn); 8] = [
            ("leader-kill", false, Role::Leader, kill, restart),
            ("follower-kill", false, Role::Follower, kill, restart),
            ("leader-pause", false, Role::Leader, pause, resume),
            ("leader-isolated", false, Role::Leader, isolate, rejoin),
            ("follower-isolated", false, Role::Follower, isolate, rejoin),
            ("leader-move", true, Role::Follower, |cluster, at| cluster.lead(at), nothing),
            ("compaction", true, Role::Leader, compact, nothing),
            ("waiter-removed", true, Role::Follower, |cluster, at| remove_waiter(&cluster.members[at]), nothing),
        ];
        let fault = |(name, is_short, role, begin, end)| OfMember {
            name,
            is_short,
            role,
            begin,
            end,
            members: self.clone(),
            at: 0,
        };
        all.into_iter().map(|one| Box::new(fault(one)) as Box<dyn ServerFault>).collect()
    }
}

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

/// Deletes the key of a waiter, if there is one. Never deletes the key of a holder: the waiter's key is deleted only if
/// an older key of the same lock still exists.
fn remove_waiter(etcd: &Etcd) -> Result<(), String> {
    let keys: Vec<_> = etcd.try_pairs("soak-")?.into_iter().map(|pair| (pair.key, pair.created)).collect();
    let lock = |key: &str| key.rsplit_once('/').map(|(lock, _)| lock.to_owned());
    let mut waiting = keys.iter().enumerate().filter_map(|(n, waiter)| {
        let first = keys[..n].iter().find(|first| lock(&first.0) == lock(&waiter.0))?;
        Some((first, waiter))
    });
    let Some(((first, revision), (waiter, _))) = waiting.next_back() else { return Ok(()) };
    let mut line = etcd.ctl_line(&["txn"]);
    let mut child = line.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let order = format!("create(\"{first}\") = \"{revision}\"\n\ndel \"{waiter}\"\n\n\n");
    // The exit status of etcdctl shows if it has read all of this.
    let _ = child.stdin.take().map(|mut input| input.write_all(order.as_bytes()));
    let ended = child.wait().map_err(|error| error.to_string())?;
    if ended.success() { Ok(()) } else { Err(format!("etcdctl txn ended with {ended}")) }
}

/// A fault of one member.
struct OfMember {
    name: &'static str,
    is_short: bool,
    role: Role,
    begin: ActOn,
    end: ActOn,
    members: Arc<Members>,
    at: usize,
}

impl ServerFault for OfMember {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_short(&self) -> bool {
        self.is_short
    }

    fn choose(&mut self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let cluster = self.members.cluster();
        let (leader, many) = (cluster.leader()?, cluster.members.len());
        drop(cluster);
        self.at = match self.role {
            Role::Leader => leader,
            Role::Follower => (leader + rng.usize(1..many)) % many,
        };
        Ok(format!("m{}", self.at))
    }

    fn begin(&mut self) -> Result<(), String> {
        (self.begin)(&mut self.members.cluster(), self.at)
    }

    fn end(&mut self) -> Result<(), String> {
        (self.end)(&mut self.members.cluster(), self.at)
    }
}
