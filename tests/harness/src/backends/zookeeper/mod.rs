//! The ZooKeeper backend: one server for all cases of a cell, or a server of a scenario's own, or an ensemble of three.

mod cluster;
mod faults;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

pub use self::cluster::Cluster;
pub use self::server::{Contender, ZooKeeper};
use super::server::Remote;
use super::{Cases, Deployment, Fault, Login, Request, Setup, TestBackend, TestServer, flat};
use crate::server::Certs;
use crate::server::process::Process;

/// The time for which another program holds a lock that it has taken.
const HELD_BY_OTHERS: Duration = Duration::from_secs(3);

/// The parent of all locks.
const LOCKS: &str = "/locks";

/// The ZooKeeper backend.
#[derive(Debug)]
pub struct Backend;

impl TestBackend for Backend {
    fn name(&self) -> &'static str {
        "zookeeper"
    }

    /// Returns 4, because the cases mostly wait: the shortest ttl is many times that of the others.
    fn lanes(&self) -> usize {
        4
    }

    fn outside(&self) -> &'static [&'static str] {
        &["outside", "breaks", "names"]
    }

    fn cases(&self, _: &Path) -> Result<Box<dyn Cases>, String> {
        Ok(Box::new(ZooKeeper::start(Setup::default())?))
    }

    fn deployments(&self) -> &'static [Deployment] {
        &[
            Deployment { word: "zookeeper", start: faults::alone },
            Deployment { word: "zookeeper3", start: faults::three },
        ]
    }

    /// Returns the longest time for which the lock of a dead process stays: a session is four thirds of the ttl, and ends
    /// up to a tick late; a new leader gives all sessions their whole time again.
    fn outlives(&self, ttl: Duration) -> Duration {
        ttl * 8 / 3 + Duration::from_secs(4)
    }

    fn faults(&self) -> &'static [Fault] {
        &[Fault::Server, Fault::Full, Fault::Deletion, Fault::Reconnect, Fault::Names]
    }

    fn remote(&self) -> Option<&'static dyn Remote> {
        Some(&Self)
    }
}

impl Cases for ZooKeeper {
    fn url(&self, case: &str) -> Result<String, String> {
        let chroot = format!("/{}", flat(case));
        self.make(&chroot).map_err(|error| error.to_string())?;
        Ok(format!("{}{chroot}", TestServer::url(self)))
    }

    fn act(&self, case: &str, words: &[&str]) -> Result<(), String> {
        let prefix = format!("/{}{LOCKS}", flat(case));
        match words {
            ["remove", key] => self.remove_below(&format!("{prefix}/{key}")),
            ["replace", key] => {
                let directory = format!("{prefix}/{key}");
                self.remove_below(&directory)?;
                self.hold(format!("{directory}/other__lock__"), HELD_BY_OTHERS)
            }
            ["wipe"] => {
                let directories = self.below(&prefix).map_err(|error| error.to_string())?;
                directories.iter().try_for_each(|path| self.remove_below(path))
            }
            other => Err(format!("ZooKeeper can't do {other:?}")),
        }
    }
}

impl Remote for Backend {
    fn start(&self, setup: Setup) -> Result<Box<dyn TestServer>, String> {
        let server = ZooKeeper::start(setup)?;
        if setup.login {
            server.ask_for_login(&self.login()).map_err(|error| error.to_string())?;
        }
        if setup.small {
            server.limit_size(60_000).map_err(|error| error.to_string())?;
        }
        Ok(Box::new(server))
    }

    /// Returns the time by which a session outlives the ttl of its leases, with the tick by which it ends late.
    fn lag(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn pattern(&self, request: Request, key: &str) -> String {
        match request {
            Request::Acquire => "1 dlock:".to_owned(),
            Request::Release => format!("/{key}/"),
        }
    }

    fn takes_back_within(&self) -> Duration {
        Duration::from_secs(6)
    }

    fn login(&self) -> Login {
        Login {
            right: "app:swordfish-4711",
            wrong: "app:swordfish-4711x",
            secret: "swordfish-4711",
            of_wrong: &["the right"],
            of_unknown: &["the right"],
            of_none: &["the right"],
        }
    }

    fn size_setting(&self) -> &'static str {
        "quota"
    }
}

impl TestServer for ZooKeeper {
    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn url(&self) -> String {
        match &self.certs {
            Some(_) => format!("zookeepers://localhost:{}", self.port),
            None => format!("zookeeper://{}", TestServer::addr(self)),
        }
    }

    fn certs(&self) -> Certs {
        self.certs.clone().expect("it was started with TLS")
    }

    fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.launch()?;
        self.served()
    }

    fn queue(&self, key: &str) -> Vec<String> {
        self.contenders_of(&format!("{LOCKS}/{key}")).into_iter().map(|one| one.path).collect()
    }

    fn owner(&self, key: &str) -> Option<String> {
        let first = self.contenders_of(&format!("{LOCKS}/{key}")).into_iter().next()?;
        Some(first.data.split(' ').nth(1).unwrap_or_default().to_owned())
    }

    fn fence(&self, key: &str) -> Option<u64> {
        let first = self.contenders_of(&format!("{LOCKS}/{key}")).into_iter().next()?;
        u64::try_from(first.stat.czxid).ok()
    }

    /// Returns the timeout of the owner's session.
    fn time_left(&self, key: &str) -> Duration {
        let first = self.contenders_of(&format!("{LOCKS}/{key}")).into_iter().next();
        let session = first.map(|first| format!("sid=0x{:x},", first.stat.ephemeral_owner));
        let cons = self.word("cons").expect("the server answers");
        let line = session.and_then(|session| cons.lines().find(|line| line.contains(&session)).map(str::to_owned));
        let timeout = line.and_then(|line| line.split("to=").nth(1)?.split(',').next()?.parse().ok());
        Duration::from_millis(timeout.unwrap_or_default())
    }

    fn left_over(&self) -> Vec<String> {
        let paths = self.below(LOCKS).expect("the server answers");
        // The server adds ten digits to the name of a contender's node.
        let is_numbered = |path: &String| path.bytes().rev().take_while(u8::is_ascii_digit).count() >= 10;
        paths.into_iter().filter(is_numbered).collect()
    }

    fn sessions(&self) -> Vec<String> {
        let dump = self.word("dump").expect("the server answers");
        let sessions = dump.lines().map(str::trim).filter(|line| line.starts_with("0x") && !line.contains(':'));
        sessions.map(str::to_owned).collect()
    }

    fn requests(&self) -> u64 {
        self.figure("zk_packets_received")
    }

    fn remove(&self, key: &str) {
        self.remove_below(&format!("{LOCKS}/{key}")).expect("the server answers");
    }

    fn fill(&self) {
        // Down to the last few bytes.
        for size in [20_000, 2_000, 200, 20] {
            while self.put(&format!("{LOCKS}/big"), size).is_ok() {}
        }
    }

    fn make_room(&self) {
        self.remove("big");
    }
}
