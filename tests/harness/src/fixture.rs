//! What the suite knows of each driver beyond the driver itself: how a fresh one is reached, and what can be done to it
//! from outside.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dlock::contract::Driver;
use dlock_harness::server::{Etcd, EtcdOptions, Redis, RedisOptions};

/// How many lanes a driver's cases are played in. Those of etcd wait most: a fresh server has to elect itself, and its
/// shortest ttl is many times that of the others.
pub(crate) fn lanes(driver: &Driver) -> usize {
    if driver.schema.name == "etcd" { 4 } else { 1 }
}

/// Whether every language plays every case on it in a covering run: on one with all its parts in the process, and on one
/// with a server.
pub(crate) fn is_whole(driver: &Driver) -> bool {
    matches!(driver.schema.name, "memory" | "redis")
}

/// One driver's own part.
enum Kit {
    Memory,
    File,
    /// A database each case.
    Redis(Box<Redis>, Mutex<Vec<String>>),
    /// A server each case, started with it: the last two, since the clients of a case are closed when the next begins.
    Etcd(Mutex<VecDeque<(String, Etcd)>>),
}

/// One driver under test by one language.
pub(crate) struct Fixture {
    driver: &'static Driver,
    kit: Kit,
    folder: PathBuf,
}

impl Fixture {
    /// Starts what the driver needs. A server ends with this value.
    pub(crate) fn new(driver: &'static Driver, folder: &Path) -> Result<Self, String> {
        let kit = match driver.schema.name {
            "memory" => Kit::Memory,
            "file" => Kit::File,
            "redis" => Kit::Redis(
                Box::new(Redis::start(&RedisOptions::new().args(&["--databases", "2000"]))?),
                Mutex::default(),
            ),
            "etcd" => {
                Etcd::found()?;
                Kit::Etcd(Mutex::default())
            }
            other => return Err(format!("the driver {other} has no kit in tests/harness/src/fixture.rs")),
        };
        Ok(Self { driver, kit, folder: folder.to_owned() })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.driver.schema.name
    }

    /// The URL of a place that nobody has used, for a case; case names are made of letters, digits, `-` and one `/`.
    pub(crate) fn url(&self, case: &str) -> Result<String, String> {
        let case = place(case);
        Ok(match &self.kit {
            Kit::Memory => {
                format!("memory://{}-{case}", self.folder.file_name().unwrap_or_default().to_string_lossy())
            }
            Kit::File => format!("file://{}", self.folder.join(case).display()),
            Kit::Redis(server, cases) => {
                let mut cases = cases.lock().unwrap_or_else(PoisonError::into_inner);
                let database = cases.iter().position(|known| *known == case).unwrap_or_else(|| {
                    cases.push(case);
                    cases.len() - 1
                });
                format!("redis://{}/{database}", server.addr())
            }
            Kit::Etcd(server) => with_server(server, case, |server| Ok(server.url()))?,
        })
    }

    /// Of the URL what follows the scheme.
    pub(crate) fn address(&self, case: &str) -> Result<String, String> {
        let url = self.url(case)?;
        Ok(url.split_once("://").map(|(_, address)| address.to_owned()).unwrap_or_default())
    }

    /// The smallest ttl that can be had.
    pub(crate) fn min_ttl(&self) -> Duration {
        (self.driver.capabilities)(&dlock::config::Values::new(self.driver.schema)).min_ttl
    }

    /// What others do to the backend.
    pub(crate) fn server(&self, case: &str, words: &[&str]) -> Result<(), String> {
        match &self.kit {
            Kit::Memory => Err(format!("nothing outside can do {words:?} to memory")),
            Kit::File => files(&self.folder.join(place(case)), words),
            Kit::Redis(..) => keys(&self.url(case)?, words),
            Kit::Etcd(server) => with_server(server, place(case), |server| contenders(server, words)),
        }
    }

    /// Whether it is so: a word of [`OF_BACKENDS`](crate::case::OF_BACKENDS).
    pub(crate) fn can(&self, word: &str) -> bool {
        let can = (self.driver.capabilities)(&dlock::config::Values::new(self.driver.schema));
        match word {
            "fence" => can.fence,
            "ttl" => can.ttl,
            "fifo" => can.fifo,
            "shared" => can.shared,
            "permits" => can.permits,
            "handoff" => can.handoff,
            "processes" => can.processes,
            "fork" => can.fork,
            "local" => can.local,
            "outside" => !matches!(self.kit, Kit::Memory),
            "files" => matches!(self.kit, Kit::File),
            "keys" => matches!(self.kit, Kit::Redis(..)),
            _ => false,
        }
    }
}

fn place(case: &str) -> String {
    case.replace('/', "-")
}

/// Does this with the server of this case, started now if it is the first time.
fn with_server<T>(
    servers: &Mutex<VecDeque<(String, Etcd)>>,
    case: String,
    work: impl FnOnce(&Etcd) -> Result<T, String>,
) -> Result<T, String> {
    let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
    if servers.back().is_none_or(|(known, _)| *known != case) {
        servers.push_back((case, Etcd::start(&EtcdOptions::new())?));
        while servers.len() > 2 {
            servers.pop_front();
        }
    }
    let (_, server) = servers.back().ok_or("no server")?;
    work(server)
}

/// What others may do to the keys of holder and queue: the words of [`files`], or any of etcdctl's.
fn contenders(server: &Etcd, words: &[&str]) -> Result<(), String> {
    match words {
        ["remove", key] => server.try_ctl(&["del", "--prefix", &format!("{key}/")]).map(drop),
        ["replace", key] => {
            let lease = server.lease(2);
            contenders(server, &["remove", key])?;
            server.try_ctl(&["put", "--lease", &lease, &format!("{key}/{lease}"), ""]).map(drop)
        }
        ["wipe"] => server.try_ctl(&["del", "--prefix", ""]).map(drop),
        command => server.try_ctl(command).map(drop),
    }
}

/// What others may do to a directory of lock files.
fn files(dir: &Path, words: &[&str]) -> Result<(), String> {
    let done = match words {
        ["remove", key] => std::fs::remove_file(dir.join(format!("{key}.lock"))),
        ["replace", key] => {
            let path = dir.join(format!("{key}.lock"));
            std::fs::remove_file(&path).and_then(|()| std::fs::write(&path, ""))
        }
        ["wipe"] => std::fs::remove_dir_all(dir),
        other => return Err(format!("a directory of lock files can't {other:?}")),
    };
    done.map_err(|error| error.to_string())
}

/// What others may do to the keys of a database: the words of [`files`], or any command of the server's.
fn keys(url: &str, words: &[&str]) -> Result<(), String> {
    let words = match words {
        ["remove", key] => vec!["DEL", *key],
        ["replace", key] => vec!["SET", *key, "somebody-else", "PX", "300"],
        ["wipe"] => vec!["FLUSHDB"],
        command => command.to_vec(),
    };
    let done = redis::Client::open(url).and_then(|client| client.get_connection()).and_then(|mut connection| {
        let (name, rest) = words.split_first().expect("a verb");
        redis::cmd(name).arg(rest).query::<redis::Value>(&mut connection)
    });
    done.map(drop).map_err(|error| error.to_string())
}
