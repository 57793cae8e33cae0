//! The etcd backend: an etcd for each case, or a cluster of three.

mod cluster;
mod etcdctl;
mod faults;
mod server;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use self::cluster::Cluster;
pub use self::etcdctl::Pair;
pub use self::server::{Etcd, EtcdOptions};
use super::server::Remote;
use super::{Cases, Deployment, Fault, Login, Request, Setup, TestBackend, TestServer, flat};
use crate::server::Certs;
use crate::server::process::Process;

/// The etcd backend.
#[derive(Debug)]
pub struct Backend;

/// A server for each case, started with the case. The last two are kept, because the clients of a case are closed when
/// the next case begins.
struct Servers(Mutex<VecDeque<(String, Etcd)>>);

impl TestBackend for Backend {
    fn name(&self) -> &'static str {
        "etcd"
    }

    /// Returns 4, because the cases mostly wait: a fresh server has to elect itself, and the shortest ttl of etcd is
    /// many times that of the others.
    fn lanes(&self) -> usize {
        4
    }

    fn outside(&self) -> &'static [&'static str] {
        &["outside", "longer", "breaks", "names"]
    }

    fn cases(&self, _: &Path) -> Result<Box<dyn Cases>, String> {
        Etcd::found()?;
        Ok(Box::new(Servers(Mutex::default())))
    }

    fn deployments(&self) -> &'static [Deployment] {
        &[Deployment { word: "etcd", start: faults::alone }, Deployment { word: "etcd3", start: faults::three }]
    }

    /// Returns the longest time for which the lock of a dead process stays. Leases end up to 1 s late. A new leader is
    /// there after 2 s. It gives all leases their whole time again, and the 1 s after which it would have been elected.
    fn outlives(&self, ttl: Duration) -> Duration {
        ttl * 2 + Duration::from_secs(4)
    }

    fn faults(&self) -> &'static [Fault] {
        &[Fault::Server, Fault::Full, Fault::Deletion, Fault::Reconnect, Fault::Names]
    }

    fn remote(&self) -> Option<&'static dyn Remote> {
        Some(&Self)
    }
}

impl Servers {
    /// Runs `work` with the server of a case. Starts the server if this is the first time.
    fn with<T>(&self, case: &str, work: impl FnOnce(&Etcd) -> Result<T, String>) -> Result<T, String> {
        let (case, mut servers) = (flat(case), self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if servers.back().is_none_or(|(known, _)| *known != case) {
            servers.push_back((case, Etcd::start(&EtcdOptions::new())?));
            while servers.len() > 2 {
                servers.pop_front();
            }
        }
        let (_, server) = servers.back().ok_or("no server")?;
        work(server)
    }
}

impl Cases for Servers {
    fn url(&self, case: &str) -> Result<String, String> {
        self.with(case, |server| Ok(server.url()))
    }

    fn act(&self, case: &str, words: &[&str]) -> Result<(), String> {
        self.with(case, |server| act(server, words))
    }
}

/// Does what others may do to the keys of the holder and of the queue.
fn act(server: &Etcd, words: &[&str]) -> Result<(), String> {
    match words {
        ["remove", key] => server.try_ctl(&["del", "--prefix", &format!("{key}/")]).map(drop),
        ["replace", key] => {
            let lease = server.lease(2);
            act(server, &["remove", key])?;
            server.try_ctl(&["put", "--lease", &lease, &format!("{key}/{lease}"), ""]).map(drop)
        }
        ["wipe"] => server.try_ctl(&["del", "--prefix", ""]).map(drop),
        command => server.try_ctl(command).map(drop),
    }
}

/// The setting that the errors of a full server name.
const QUOTA: &str = "quota-backend-bytes";

impl Remote for Backend {
    fn start(&self, setup: Setup) -> Result<Box<dyn TestServer>, String> {
        let mut options = EtcdOptions::new();
        if setup.tls {
            options = options.tls();
        }
        if setup.small {
            options = options.args(&[&format!("--{QUOTA}"), "60000"]);
        }
        let server = Etcd::start(&options)?;
        if setup.login {
            server.ask_for_login()?;
        }
        Ok(Box::new(server))
    }

    /// Returns 1 s, because etcd looks for expired leases every half second, and asks all members to revoke them.
    fn lag(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Returns the bytes of a request. Only a put contains the beginning of the value that dlock writes. A release
    /// contains the key.
    fn pattern(&self, request: Request, key: &str) -> String {
        match request {
            Request::Acquire => "1 dlock:".to_owned(),
            Request::Release => format!("{key}/"),
        }
    }

    fn takes_back_within(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn login(&self) -> Login {
        Login {
            right: "root:swordfish-4711",
            wrong: "root:swordfish-4711x",
            secret: "swordfish-4711",
            of_wrong: &["check username and password"],
            of_unknown: &["check username and password"],
            of_none: &["asks for username"],
        }
    }

    fn size_setting(&self) -> &'static str {
        QUOTA
    }
}

impl Etcd {
    /// Makes the server ask for a login from now on. A user `app` has the keys below `app/`.
    ///
    /// # Errors
    /// The errors of etcdctl.
    pub fn ask_for_login(&self) -> Result<(), String> {
        for line in [
            "user add root:swordfish-4711",
            "role add locks",
            "role grant-permission locks --prefix=true readwrite app/",
            "user add app:swordfish-4711",
            "user grant-role app locks",
            "auth enable",
        ] {
            self.try_ctl(&line.split(' ').collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

impl TestServer for Etcd {
    fn addr(&self) -> std::net::SocketAddr {
        self.addr()
    }

    fn url(&self) -> String {
        self.url()
    }

    fn certs(&self) -> Certs {
        self.certs().clone()
    }

    fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn restart(&mut self) -> Result<(), String> {
        self.restart()
    }

    fn queue(&self, key: &str) -> Vec<String> {
        self.keys(&format!("{key}/"))
    }

    fn owner(&self, key: &str) -> Option<String> {
        let first = self.pairs(&format!("{key}/")).into_iter().next()?;
        Some(first.value.split(' ').nth(1).unwrap_or_default().to_owned())
    }

    fn fence(&self, key: &str) -> Option<u64> {
        self.pairs(&format!("{key}/")).first().map(|first| first.created.unsigned_abs())
    }

    fn time_left(&self, key: &str) -> Duration {
        let lease = self.pairs(&format!("{key}/")).first().map_or(0, |first| first.lease);
        let answer = self.raw(async |mut client| client.lease_time_to_live(lease, None).await);
        let left = answer.map_or(0, |answer| answer.ttl());
        Duration::from_secs(left.try_into().unwrap_or_default())
    }

    fn left_over(&self) -> Vec<String> {
        self.keys("")
    }

    /// Returns the leases of keys and clients.
    fn sessions(&self) -> Vec<String> {
        self.ctl(&["lease", "list"]).lines().skip(1).map(str::to_owned).collect()
    }

    fn requests(&self) -> u64 {
        self.asked("KV", "Txn") + self.asked("KV", "Range")
    }

    fn remove(&self, key: &str) {
        act(self, &["remove", key]).expect("etcdctl works");
    }

    fn fill(&self) {
        let big = "x".repeat(40_000);
        while self.try_ctl(&["put", "big", &big]).is_ok() {}
    }

    fn make_room(&self) {
        self.ctl(&["del", "big"]);
        self.compact();
        self.ctl(&["defrag"]);
        self.ctl(&["alarm", "disarm"]);
    }
}
