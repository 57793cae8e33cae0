//! The Redis backend: a redis-server, and a database for each case.

mod canned;
mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use self::canned::Canned;
pub use self::server::{Redis, RedisOptions};
use super::deployed::of_server;
use super::server::Remote;
use super::{Cases, Deployed, Deployment, Fault, Login, Request, ServerFault, Setup, TestBackend, TestServer, flat};
use crate::server::Certs;
use crate::server::process::Process;

/// The Redis backend.
#[derive(Debug)]
pub struct Backend;

/// A server, and the cases that have a database each.
struct Databases(Redis, Mutex<Vec<String>>);

impl TestBackend for Backend {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn outside(&self) -> &'static [&'static str] {
        &["outside", "keys", "longer", "breaks", "names"]
    }

    fn cases(&self, _: &Path) -> Result<Box<dyn Cases>, String> {
        let server = Redis::start(&RedisOptions::new().args(&["--databases", "2000"]))?;
        Ok(Box::new(Databases(server, Mutex::default())))
    }

    fn deployments(&self) -> &'static [Deployment] {
        &[Deployment { word: "redis", start: deploy }]
    }

    fn faults(&self) -> &'static [Fault] {
        &[Fault::Server, Fault::Full, Fault::Deletion, Fault::Reconnect, Fault::Names, Fault::DataLoss]
    }

    fn remote(&self) -> Option<&'static dyn Remote> {
        Some(&Self)
    }
}

impl Cases for Databases {
    fn url(&self, case: &str) -> Result<String, String> {
        let mut cases = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let case = flat(case);
        let database = cases.iter().position(|known| *known == case).unwrap_or_else(|| {
            cases.push(case);
            cases.len() - 1
        });
        Ok(format!("{}/{database}", self.0.url()))
    }

    fn act(&self, case: &str, words: &[&str]) -> Result<(), String> {
        let words = match words {
            ["remove", key] => vec!["DEL", *key],
            ["replace", key] => vec!["SET", *key, "somebody-else", "PX", "300"],
            ["wipe"] => vec!["FLUSHDB"],
            command => command.to_vec(),
        };
        let client = redis::Client::open(self.url(case)?);
        let done = client.and_then(|client| client.get_connection()).and_then(|mut connection| {
            let (name, rest) = words.split_first().expect("a verb");
            redis::cmd(name).arg(rest).query::<redis::Value>(&mut connection)
        });
        done.map(drop).map_err(|error| error.to_string())
    }
}

fn deploy() -> Result<Arc<dyn Deployed>, String> {
    Ok(Arc::new(Redis::start(&RedisOptions::new())?))
}

impl Deployed for Redis {
    fn addrs(&self) -> Vec<SocketAddr> {
        vec![self.addr()]
    }

    fn url(&self, addrs: &[SocketAddr]) -> String {
        format!("redis://{}", addrs[0])
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        of_server(
            &self,
            &[
                ("script-flush", |redis| said(redis, &["SCRIPT", "FLUSH"])),
                ("client-kill", |redis| said(redis, KILL_CLIENTS)),
            ],
        )
    }
}

const KILL_CLIENTS: &[&str] = &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];

fn said(redis: &Redis, words: &[&str]) -> Result<(), String> {
    redis.try_command::<redis::Value>(words).map(drop).map_err(|error| error.to_string())
}

impl Remote for Backend {
    fn start(&self, setup: Setup) -> Result<Box<dyn TestServer>, String> {
        let mut options = RedisOptions::new();
        if setup.durable {
            options = options.appendonly("always");
        }
        if setup.login {
            options = options.password(self.login().right.trim_start_matches(':'));
        }
        if setup.tls {
            options = options.tls();
        }
        if setup.small {
            options = options.args(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
        }
        Ok(Box::new(Redis::start(&options)?))
    }

    /// Returns the beginning of a request. Scripts have different numbers of words: an acquire has 12, a release or a
    /// withdrawal has 10.
    fn pattern(&self, request: Request, _: &str) -> String {
        let words = match request {
            Request::Acquire => 12,
            Request::Release => 10,
        };
        format!("*{words}\r\n$7\r\nEVALSHA")
    }

    fn is_followed_by_proxies(&self) -> bool {
        true
    }

    fn takes_back_within(&self) -> Duration {
        Duration::from_millis(1500)
    }

    fn login(&self) -> Login {
        Login {
            right: ":swordfish-4711",
            wrong: ":swordfish-4711x",
            secret: "swordfish-4711",
            of_wrong: &["login", "password"],
            of_unknown: &["login", "username"],
            of_none: &["password"],
        }
    }

    fn size_setting(&self) -> &'static str {
        "maxmemory"
    }
}

impl TestServer for Redis {
    fn addr(&self) -> SocketAddr {
        self.addr()
    }

    fn url(&self) -> String {
        match self.tls_port() {
            Some(port) => format!("rediss://localhost:{port}"),
            None => format!("redis://{}", self.addr()),
        }
    }

    fn certs(&self) -> Certs {
        self.tls().2.clone()
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

    fn connections(&self) -> Option<usize> {
        Some(self.get::<String>(&["CLIENT", "LIST"]).lines().count())
    }

    fn queue(&self, key: &str) -> Vec<String> {
        let waiting: Vec<String> = self.get(&["ZRANGE", &format!("dlock:q:{{{key}}}"), "0", "-1"]);
        TestServer::owner(self, key).into_iter().chain(waiting).collect()
    }

    fn owner(&self, key: &str) -> Option<String> {
        self.get(&["GET", key])
    }

    fn fence(&self, key: &str) -> Option<u64> {
        let last: Option<String> = self.get(&["GET", &format!("dlock:f:{{{key}}}")]);
        last.and_then(|last| last.split(' ').next()?.parse().ok())
    }

    fn time_left(&self, key: &str) -> Duration {
        Duration::from_millis(self.get::<i64>(&["PTTL", key]).try_into().unwrap_or_default())
    }

    /// Returns all keys except fences, and except details of queues that are about to expire.
    fn left_over(&self) -> Vec<String> {
        let mut keys = self.keys("*");
        keys.retain(|key| {
            let expires = || self.get::<i64>(&["PTTL", key]) != -1;
            !(key.starts_with("dlock:f:") || key.starts_with("dlock:d:") && expires())
        });
        keys
    }

    /// Returns the number of scripts that the server has run or refused.
    fn requests(&self) -> u64 {
        let stats: String = self.get(&["INFO", "commandstats"]);
        let of = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
        stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(of).sum()
    }

    fn remove(&self, key: &str) {
        self.command(&["DEL", key]);
    }

    fn fill(&self) {
        let text = "x".repeat(10_000);
        let put = |n: u32| self.try_command::<String>(&["SET", &format!("filler{n}"), &text]);
        assert!((0..100_000).any(|n| put(n).is_err()), "it never got full");
        self.command(&["CONFIG", "SET", "maxmemory", "2mb"]);
    }

    fn make_room(&self) {
        self.command(&["CONFIG", "SET", "maxmemory", "0"]);
    }
}
