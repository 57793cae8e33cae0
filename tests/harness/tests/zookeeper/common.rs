//! What the scenarios share: a server, clients that are contenders of their own, and bounds.

use std::fmt::Display;
use std::time::Duration;

use dlock::Client;
use dlock_harness::backends::Setup;
use dlock_harness::backends::zookeeper::ZooKeeper;
pub(crate) use dlock_harness::scenario::{LONG, acquired, begin, lock, ms, released, until, until_contenders};
use dlock_harness::scenario::{answered, next};

pub(crate) fn server() -> ZooKeeper {
    ZooKeeper::start(Setup::default()).unwrap()
}

/// Returns a client that shares nothing with any other of this process, and has been answered once.
///
/// `addr`: the server's address, or several with commas between.
pub(crate) fn client(addr: impl Display) -> Client {
    client_with(addr, "")
}

/// Returns the same with further options of the URL.
pub(crate) fn client_with(addr: impl Display, options: &str) -> Client {
    connect(addr, ms(5000), options)
}

/// Returns the same for a client that bears a long outage.
pub(crate) fn patient_client(addr: impl Display) -> Client {
    connect(addr, ms(60_000), "")
}

fn connect(addr: impl Display, timeout: Duration, options: &str) -> Client {
    // Clients of equal configuration would be one contender.
    let timeout = (timeout + Duration::from_micros(next())).as_secs_f64();
    answered(Client::connect(&format!("zookeeper://{addr}?connect_timeout={timeout:.6}{options}")).unwrap())
}
