//! The faults that the soak test injects into a ZooKeeper or the members of an ensemble, and into their nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use zookeeper_client::Error;

use super::{Cluster, LOCKS, ZooKeeper};
use crate::backends::deployed::{Ensemble, Kind, Members, Role, of_server};
use crate::backends::{Deployed, ServerFault, Setup, TestServer};

/// The unit of time of the soak's servers. It is short, so that a new leader is there before the sessions end.
const TICK: Duration = Duration::from_millis(500);

pub(super) fn alone() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(ZooKeeper::ticking(Setup::default(), TICK)?))
}

pub(super) fn three() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(Members::new(Cluster::ticking(3, TICK)?)))
}

fn url(addrs: &[SocketAddr]) -> String {
    format!("zookeeper://{}", addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

fn version(server: &ZooKeeper) -> Option<String> {
    let answer = server.word("srvr").ok()?;
    let version = answer.lines().find_map(|line| line.strip_prefix("Zookeeper version: "))?;
    Some(format!("ZooKeeper {}", version.split(['-', ',']).next().unwrap_or_default()))
}

impl Deployed for ZooKeeper {
    fn addrs(&self) -> Vec<SocketAddr> {
        vec![TestServer::addr(self)]
    }

    fn url(&self, addrs: &[SocketAddr]) -> String {
        url(addrs)
    }

    fn version(&self) -> Option<String> {
        version(self)
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        of_server(&self, &[("waiter-removed", remove_waiter)])
    }
}

impl Ensemble for Cluster {
    type Member = ZooKeeper;

    fn members(&mut self) -> &mut [ZooKeeper] {
        &mut self.members
    }

    fn url(addrs: &[SocketAddr]) -> String {
        url(addrs)
    }

    fn version(&self) -> Option<String> {
        version(&self.members[0])
    }

    fn own_faults() -> Vec<Kind<Self>> {
        let remove = |cluster: &mut Self, at: usize| remove_waiter(&cluster.members[at]);
        vec![("waiter-removed", true, Role::Follower, remove, |_, _| Ok(()))]
    }

    fn leader(&mut self) -> Result<usize, String> {
        self.served()?;
        Self::leader(self)
    }

    fn isolate(&mut self, at: usize) {
        Self::isolate(self, at);
    }

    fn rejoin(&mut self) {
        Self::rejoin(self);
    }
}

/// Deletes the node of a waiter, if there is one. Never deletes the node of a holder: the waiter's node is deleted only if
/// an older node of the same lock still exists.
fn remove_waiter(server: &ZooKeeper) -> Result<(), String> {
    let locks = server.raw(async |client| client.list_children(LOCKS).await);
    let locks = locks.map_err(|error| error.to_string())?;
    for lock in locks.iter().filter(|lock| lock.starts_with("soak-")) {
        let contenders = server.try_contenders_of(&format!("{LOCKS}/{lock}")).map_err(|error| error.to_string())?;
        let [first, .., waiter] = &contenders[..] else { continue };
        let deleted = server.raw(async |client| {
            let mut both = client.new_multi_writer();
            both.add_check_version(&first.path, -1)?;
            both.add_delete(&waiter.path, None)?;
            both.commit().await.map(drop).map_err(Error::from)
        });
        return match deleted {
            // One of them may have gone in the meantime.
            Ok(()) | Err(Error::NoNode) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
    }
    Ok(())
}
