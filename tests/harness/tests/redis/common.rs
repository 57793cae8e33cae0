//! What the scenarios share: servers, clients that are contenders of their own, and what a server can tell.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dlock::Client;
use dlock_harness::backends::redis::{Redis, RedisOptions};
use dlock_harness::proxy::Proxy;
pub(crate) use dlock_harness::scenario::{LONG, lock, ms, released, until};
use dlock_harness::scenario::{answered, next};

/// What a loaded machine may add to a bound.
pub(crate) const SLACK: Duration = Duration::from_millis(700);
/// How long after its deadline a call may return.
pub(crate) const LATE: Duration = Duration::from_millis(100);

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
    server.get(&["GET", key])
}

/// How many contenders stand in the queue.
pub(crate) fn queued(server: &Redis, key: &str) -> u64 {
    server.get(&["ZCARD", &format!("dlock:q:{{{key}}}")])
}

/// The last fence that the server gave for it.
pub(crate) fn fence_at(server: &Redis, key: &str) -> Option<u64> {
    let last: Option<String> = server.get(&["GET", &format!("dlock:f:{{{key}}}")]);
    last.and_then(|last| last.split(' ').next()?.parse().ok())
}

/// Waits until the queue has so many contenders.
pub(crate) fn until_queued(server: &Redis, key: &str, n: u64) {
    until(&format!("{n} in the queue of {key}"), LONG, || queued(server, key) == n);
}

/// What is there but fences, and details of queues that are about to expire.
pub(crate) fn left_over(server: &Redis) -> Vec<String> {
    let mut keys = server.keys("*");
    keys.retain(|key| {
        let expires = || server.get::<i64>(&["PTTL", key]) != -1;
        !(key.starts_with("dlock:f:") || key.starts_with("dlock:d:") && expires())
    });
    keys
}

/// Waits until nothing is left but fences.
pub(crate) fn until_clean(server: &Redis, limit: Duration) {
    let end = Instant::now() + limit;
    loop {
        let left = left_over(server);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left after {limit:?}: {left:?}");
        std::thread::sleep(ms(5));
    }
}

/// How many scripts the server has run or refused.
pub(crate) fn scripts_run(server: &Redis) -> u64 {
    let stats: String = server.get(&["INFO", "commandstats"]);
    let of = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
    stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(of).sum()
}

/// How many connections the server has.
pub(crate) fn connected(server: &Redis) -> usize {
    server.get::<String>(&["CLIENT", "LIST"]).lines().count()
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
