//! The faults that the soak test injects into an etcd or the members of a cluster, and into their keys.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use super::{Cluster, Etcd, EtcdOptions};
use crate::backends::deployed::{ActOn, Ensemble, Kind, Members, Role, of_server};
use crate::backends::{Deployed, ServerFault};

pub(super) fn alone() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(Etcd::start(&EtcdOptions::new())?))
}

pub(super) fn three() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(Members::new(Cluster::start(3, &EtcdOptions::new())?)))
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
        of_server(&self, &[("compaction", compact), ("waiter-removed", remove_waiter)])
    }
}

impl Ensemble for Cluster {
    type Member = Etcd;

    fn members(&mut self) -> &mut [Etcd] {
        &mut self.members
    }

    fn url(addrs: &[SocketAddr]) -> String {
        url(addrs)
    }

    fn version(&self) -> Option<String> {
        Some(format!("etcd {}", self.members[0].version()))
    }

    fn own_faults() -> Vec<Kind<Self>> {
        let nothing: ActOn<Self> = |_, _| Ok(());
        let compact: ActOn<Self> = |cluster, at| {
            cluster.members[at].compact();
            Ok(())
        };
        let remove: ActOn<Self> = |cluster, at| remove_waiter(&cluster.members[at]);
        vec![
            ("leader-move", true, Role::Follower, |cluster, at| cluster.lead(at), nothing),
            ("compaction", true, Role::Leader, compact, nothing),
            ("waiter-removed", true, Role::Follower, remove, nothing),
        ]
    }

    fn leader(&mut self) -> Result<usize, String> {
        Self::leader(self)
    }

    fn isolate(&mut self, at: usize) {
        Self::isolate(self, at);
    }

    fn rejoin(&mut self) {
        Self::rejoin(self);
    }
}

fn compact(etcd: &Etcd) -> Result<(), String> {
    etcd.compact();
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
