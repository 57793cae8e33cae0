//! The deployments that the soak test starts by a word, and the faults that it injects into their servers.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::TestServer;

/// A deployment that a word of `dlock-soak --url` starts.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    pub word: &'static str,
    /// The function that starts it. When the result is dropped, its servers and folders are removed.
    pub start: fn() -> Result<Arc<dyn Deployed>, String>,
}

/// A place for the locks of one run.
pub trait Deployed: Send + Sync {
    /// Returns the addresses of the servers, each for a proxy. The list is empty if no network leads to the place.
    fn addrs(&self) -> Vec<SocketAddr>;

    /// Returns the URL of the place, with `addrs` instead of the addresses of its servers.
    fn url(&self, addrs: &[SocketAddr]) -> String;

    /// Returns the name and version of the servers, where they matter.
    fn version(&self) -> Option<String> {
        None
    }

    /// Returns true if a lock outlives the connection of its holder.
    fn outlives_connections(&self) -> bool {
        true
    }

    /// Returns the faults that the servers can have.
    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>>;
}

/// A fault of a server.
pub trait ServerFault: Send {
    /// Returns the fault's name in the history.
    fn name(&self) -> &'static str;

    /// Returns true if the fault is over as soon as it has begun.
    fn is_short(&self) -> bool;

    /// Chooses the next target of the fault, and returns the target's name.
    ///
    /// # Errors
    /// If the servers don't answer.
    fn choose(&mut self, rng: &mut fastrand::Rng) -> Result<String, String>;

    /// Begins the fault.
    ///
    /// # Errors
    /// If the fault can't be made.
    fn begin(&mut self) -> Result<(), String>;

    /// Ends the fault.
    ///
    /// # Errors
    /// If the fault can't be undone.
    fn end(&mut self) -> Result<(), String>;
}

/// A function that begins or ends a fault.
pub(super) type Act<T> = fn(&T) -> Result<(), String>;

/// Returns the faults of a server that has no others beside it: a pause, and those of its own, which are over as soon as
/// they have begun.
pub(super) fn of_server<T: TestServer + 'static>(
    server: &Arc<T>,
    own: &[(&'static str, Act<T>)],
) -> Vec<Box<dyn ServerFault>> {
    let pause: Act<T> = |server| {
        server.pause();
        Ok(())
    };
    let resume: Act<T> = |server| {
        server.resume();
        Ok(())
    };
    let short = |(name, begin): &(&'static str, Act<T>)| (*name, true, *begin, (|_| Ok(())) as Act<T>);
    let all = [("server-pause", false, pause, resume)].into_iter().chain(own.iter().map(short));
    let fault = |(name, is_short, begin, end)| OfServer { name, is_short, begin, end, server: server.clone() };
    all.map(|one| Box::new(fault(one)) as Box<dyn ServerFault>).collect()
}

/// A fault of the only server.
struct OfServer<T> {
    name: &'static str,
    is_short: bool,
    begin: Act<T>,
    end: Act<T>,
    server: Arc<T>,
}

impl<T: Send + Sync> ServerFault for OfServer<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_short(&self) -> bool {
        self.is_short
    }

    fn choose(&mut self, _: &mut fastrand::Rng) -> Result<String, String> {
        Ok("server".to_owned())
    }

    fn begin(&mut self) -> Result<(), String> {
        (self.begin)(&self.server)
    }

    fn end(&mut self) -> Result<(), String> {
        (self.end)(&self.server)
    }
}

/// Servers that have a leader.
pub(super) trait Ensemble: Send + Sized + 'static {
    type Member: TestServer;

    fn members(&mut self) -> &mut [Self::Member];

    /// Returns the URL of servers with these addresses.
    fn url(addrs: &[SocketAddr]) -> String;

    /// Returns the name and version of the servers.
    fn version(&self) -> Option<String>;

    /// Returns the faults that only servers of this kind have.
    fn own_faults() -> Vec<Kind<Self>>;

    /// Returns the index of the leader, when all is as it should be.
    fn leader(&mut self) -> Result<usize, String>;

    /// Cuts a member off from the others, but not from clients.
    fn isolate(&mut self, at: usize);

    /// Ends the isolation.
    fn rejoin(&mut self);
}

/// The target of a fault in an ensemble.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Leader,
    Follower,
}

/// A function that begins or ends a fault of the n-th member.
pub(super) type ActOn<E> = fn(&mut E, usize) -> Result<(), String>;

/// The members of an ensemble, which its faults share.
pub(super) struct Members<E>(Mutex<E>);

impl<E: Ensemble> Members<E> {
    pub(super) fn new(ensemble: E) -> Self {
        Self(Mutex::new(ensemble))
    }

    fn locked(&self) -> MutexGuard<'_, E> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Ensemble> Deployed for Members<E> {
    fn addrs(&self) -> Vec<SocketAddr> {
        self.locked().members().iter().map(TestServer::addr).collect()
    }

    fn url(&self, addrs: &[SocketAddr]) -> String {
        E::url(addrs)
    }

    fn version(&self) -> Option<String> {
        self.locked().version()
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        let fault = |(name, is_short, role, begin, end)| {
            let one = OfMember { name, is_short, role, begin, end, members: self.clone(), at: 0 };
            Box::new(one) as Box<dyn ServerFault>
        };
        of_ensembles().into_iter().chain(E::own_faults()).map(fault).collect()
    }
}

/// A kind of fault: its name, true if it is short, whom it hits, how it begins and how it ends.
pub(super) type Kind<E> = (&'static str, bool, Role, ActOn<E>, ActOn<E>);

/// Returns the faults that every ensemble can have.
fn of_ensembles<E: Ensemble>() -> Vec<Kind<E>> {
    let (kill, restart): (ActOn<E>, ActOn<E>) = (
        |ensemble, at| {
            ensemble.members()[at].kill();
            Ok(())
        },
        |ensemble, at| ensemble.members()[at].restart(),
    );
    let (isolate, rejoin): (ActOn<E>, ActOn<E>) = (
        |ensemble, at| {
            ensemble.isolate(at);
            Ok(())
        },
        |ensemble, _| {
            ensemble.rejoin();
            Ok(())
        },
    );
    let (pause, resume): (ActOn<E>, ActOn<E>) = (
        |ensemble, at| {
            ensemble.members()[at].pause();
            Ok(())
        },
        |ensemble, at| {
            ensemble.members()[at].resume();
            Ok(())
        },
    );
    vec![
        ("leader-kill", false, Role::Leader, kill, restart),
        ("follower-kill", false, Role::Follower, kill, restart),
        ("leader-pause", false, Role::Leader, pause, resume),
        ("leader-isolated", false, Role::Leader, isolate, rejoin),
        ("follower-isolated", false, Role::Follower, isolate, rejoin),
    ]
}

/// A fault of one member.
struct OfMember<E> {
    name: &'static str,
    is_short: bool,
    role: Role,
    begin: ActOn<E>,
    end: ActOn<E>,
    members: Arc<Members<E>>,
    at: usize,
}

impl<E: Ensemble> ServerFault for OfMember<E> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_short(&self) -> bool {
        self.is_short
    }

    fn choose(&mut self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let mut ensemble = self.members.locked();
        let (leader, many) = (ensemble.leader()?, ensemble.members().len());
        drop(ensemble);
        self.at = match self.role {
            Role::Leader => leader,
            Role::Follower => (leader + rng.usize(1..many)) % many,
        };
        Ok(format!("m{}", self.at))
    }

    fn begin(&mut self) -> Result<(), String> {
        (self.begin)(&mut self.members.locked(), self.at)
    }

    fn end(&mut self) -> Result<(), String> {
        (self.end)(&mut self.members.locked(), self.at)
    }
}
