//! What the scenarios share: servers, and clients that are contenders of their own.

use dlock::Client;
use dlock_harness::backends::TestServer;
use dlock_harness::backends::mysql::MySql;
pub(crate) use dlock_harness::scenario::{LONG, SLACK, acquired, again, begin, lock, ms, released, says, until};
use dlock_harness::scenario::{answered, next};

pub(crate) fn server() -> MySql {
    MySql::start(dlock_harness::backends::Setup::default()).unwrap()
}

/// A client that shares nothing with any other of this process.
pub(crate) fn cold(server: &MySql, options: &str) -> Client {
    // Clients of equal configuration would be one contender.
    Client::connect(&format!("{}?connect_timeout=5.{:06}{options}", TestServer::url(server), next())).unwrap()
}

/// The same, answered once.
pub(crate) fn client(server: &MySql) -> Client {
    answered(cold(server, ""))
}
