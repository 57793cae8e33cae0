//! What the scenarios share: servers, clients that are contenders of their own, and what a server can tell.

use std::net::SocketAddr;
use std::time::Duration;

use dlock::Client;
use dlock_harness::backends::TestServer;
use dlock_harness::backends::redis::{Redis, RedisOptions};
use dlock_harness::proxy::Proxy;
pub(crate) use dlock_harness::scenario::{LATE, LONG, SLACK, lock, ms, released, until, until_clean};
use dlock_harness::scenario::{answered, next};

pub(crate) fn server() -> Redis {
    Redis::start(&RedisOptions::new()).unwrap()
}

pub(crate) fn proxy(server: &Redis) -> Proxy {
    Proxy::new(server.addr()).unwrap()
}

/// A client that shares nothing with any other of this process, and has been answered once.
pub(crate) fn client(addr: SocketAddr) -> Client {
    client_with(addr, ms(5000))
}

/// The same with about this `connect_timeout`.
pub(crate) fn client_with(addr: SocketAddr, timeout: Duration) -> Client {
    answered(cold(addr, timeout))
}

/// The same without any contact so far.
pub(crate) fn cold(addr: SocketAddr, timeout: Duration) -> Client {
    // Clients of equal configuration would be one contender.
    let url = format!("redis://{addr}?connect_timeout={:.6}", (timeout + Duration::from_micros(next())).as_secs_f64());
    Client::connect(&url).unwrap()
}

/// The value of the key itself: the token of its owner.
pub(crate) fn owner(server: &Redis, key: &str) -> Option<String> {
    TestServer::owner(server, key)
}

/// How many contenders stand in the queue.
pub(crate) fn queued(server: &Redis, key: &str) -> u64 {
    server.get(&["ZCARD", &format!("dlock:q:{{{key}}}")])
}

/// The last fence that the server gave for it.
pub(crate) fn fence_at(server: &Redis, key: &str) -> Option<u64> {
    TestServer::fence(server, key)
}

/// Waits until the queue has so many contenders.
pub(crate) fn until_queued(server: &Redis, key: &str, n: u64) {
    until(&format!("{n} in the queue of {key}"), LONG, || queued(server, key) == n);
}

/// What is there but fences, and details of queues that are about to expire.
pub(crate) fn left_over(server: &Redis) -> Vec<String> {
    TestServer::left_over(server)
}

/// How many scripts the server has run or refused.
pub(crate) fn scripts_run(server: &Redis) -> u64 {
    TestServer::requests(server)
}

/// How many connections the server has.
pub(crate) fn connected(server: &Redis) -> usize {
    TestServer::connections(server).expect("it counts them")
}

/// The median of some times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Whether this process is to do the scenario itself. Else it is done in one of its own, where nothing else opens
/// descriptors or fills the runtime.
pub(crate) fn alone(test: &str) -> bool {
    const INSIDE: &str = "DLOCK_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut line = std::process::Command::new(std::env::current_exe().unwrap());
    let done = line.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    println!("{}", String::from_utf8_lossy(&done.stdout));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    false
}
