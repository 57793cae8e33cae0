//! The MySQL backend, in its mode `get_lock`: two MariaDBs for the cases of a cell, or a server of a scenario's own.

mod faults;
mod server;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use self::server::MySql;
use super::server::Remote;
use super::{Cases, Deployment, Fault, Login, Request, Setup, TestBackend, TestServer};

/// The time for which another program holds a lock that it has taken.
const HELD_BY_OTHERS: Duration = Duration::from_secs(3);

/// The MySQL backend.
#[derive(Debug)]
pub struct Backend;

impl TestBackend for Backend {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn lanes(&self) -> usize {
        2
    }

    fn outside(&self) -> &'static [&'static str] {
        &["outside"]
    }

    fn cases(&self, _: &Path) -> Result<Box<dyn Cases>, String> {
        let start = || MySql::start(Setup::default());
        let turns = Turns { servers: [start()?, start()?], case: String::new(), turn: 0 };
        Ok(Box::new(InTurns(Mutex::new(turns))))
    }

    fn deployments(&self) -> &'static [Deployment] {
        &[Deployment { word: "mysql", start: faults::alone }]
    }

    /// Returns the longest time for which the lock of a dead process stays. A waiter that died without a word may be
    /// granted the lock before that, and keeps it for its ttl.
    fn outlives(&self, ttl: Duration) -> Duration {
        ttl + Duration::from_millis(500)
    }

    fn faults(&self) -> &'static [Fault] {
        &[Fault::Server]
    }

    fn remote(&self) -> Option<&'static dyn Remote> {
        Some(&Self)
    }
}

/// Two servers, which the cases use in turns. A case gets one without sessions: the clients of a case are closed when the
/// next case begins.
struct InTurns(Mutex<Turns>);

struct Turns {
    servers: [MySql; 2],
    case: String,
    turn: usize,
}

impl InTurns {
    /// Runs `work` with the server of a case.
    fn with<T>(&self, case: &str, work: impl FnOnce(&MySql) -> Result<T, String>) -> Result<T, String> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.case != case {
            (turns.case, turns.turn) = (case.to_owned(), 1 - turns.turn);
            let server = &turns.servers[turns.turn];
            server.kill_sessions(server.clients());
        }
        work(&turns.servers[turns.turn])
    }
}

impl Cases for InTurns {
    fn url(&self, case: &str) -> Result<String, String> {
        self.with(case, |server| Ok(TestServer::url(server)))
    }

    fn act(&self, case: &str, words: &[&str]) -> Result<(), String> {
        self.with(case, |server| match words {
            ["remove", key] => {
                server.remove(key);
                Ok(())
            }
            ["replace", key] => {
                server.remove(key);
                server.hold(key, HELD_BY_OTHERS)
            }
            ["wipe"] => {
                server.held().iter().for_each(|name| server.remove(name));
                Ok(())
            }
            other => Err(format!("MySQL can't do {other:?}")),
        })
    }
}

impl Remote for Backend {
    fn start(&self, setup: Setup) -> Result<Box<dyn TestServer>, String> {
        Ok(Box::new(MySql::start(setup)?))
    }

    fn lag(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn pattern(&self, request: Request, key: &str) -> String {
        match request {
            Request::Acquire => format!("GET_LOCK('{key}'"),
            Request::Release => format!("RELEASE_LOCK('{key}'"),
        }
    }

    fn takes_back_within(&self) -> Duration {
        Duration::from_secs(3)
    }

    fn login(&self) -> Login {
        Login {
            right: "app:swordfish-4711",
            wrong: "app:swordfish-4711x",
            secret: "swordfish-4711",
            of_wrong: &["username and password"],
            of_unknown: &["username and password"],
            of_none: &["username and password"],
        }
    }

    fn size_setting(&self) -> &'static str {
        "max_connections"
    }
}
