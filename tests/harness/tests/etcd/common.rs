//! What the scenarios share: servers, clients that are contenders of their own, and what a server can tell.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dlock::{Client, Lease, Lock, Op, ReleaseOutcome};
use dlock_harness::proxy::Proxy;
use dlock_harness::server::{Etcd, EtcdOptions};

/// How long anything may take that has no bound of its own.
pub(crate) const LONG: Duration = Duration::from_secs(10);
/// The ttl of a lock whose end is to come soon: the least there is.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn server() -> Etcd {
    Etcd::start(&EtcdOptions::new()).unwrap()
}

pub(crate) fn proxy(server: &Etcd) -> Proxy {
    Proxy::new(server.addr()).unwrap()
}

/// A client that shares nothing with any other of this process, and has been answered once.
pub(crate) fn client(addr: SocketAddr) -> Client {
    let client = cold(&addr.to_string());
    let warm = client.lock(&format!("warm-{}", next())).try_acquire().wait().unwrap().unwrap();
    released(&warm);
    client
}

/// The same without any contact so far; of several endpoints with commas between.
pub(crate) fn cold(endpoints: &str) -> Client {
    // Clients of equal configuration would be one contender.
    let url = format!("etcd://{endpoints}?connect_timeout=5.{:06}", next());
    Client::connect(&url).unwrap()
}

pub(crate) fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A lock that waits for a bounded time.
pub(crate) fn lock(client: &Client, key: &str, ttl: Duration) -> Lock {
    client.lock(key).ttl(ttl).wait(LONG)
}

pub(crate) fn acquired(client: &Client, key: &str) -> Lease {
    lock(client, key, ms(30_000)).acquire().wait().unwrap()
}

pub(crate) fn released(lease: &Lease) {
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released, "{}", lease.key());
}

/// Begins an acquire that goes on whatever this thread does.
pub(crate) fn begin(lock: &Lock) -> std::thread::JoinHandle<dlock::Result<Lease>> {
    let op: Op<Lease> = lock.acquire();
    std::thread::spawn(move || op.wait())
}

/// Waits for it, in small steps.
pub(crate) fn until(what: &str, limit: Duration, mut come: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !come() {
        assert!(Instant::now() < end, "within {limit:?} it didn't come about: {what}");
        std::thread::sleep(ms(5));
    }
}

/// This program again, as one of its tests: another process, which its variables tell what to do.
pub(crate) fn again(test: &str) -> Command {
    let mut line = Command::new(std::env::current_exe().unwrap());
    line.args(["--exact", test, "--nocapture"]);
    line
}

/// The keys of holder and queue, in their order.
pub(crate) fn contenders(server: &Etcd, name: &str) -> Vec<String> {
    server.keys(&format!("{name}/"))
}

/// Waits until so many hold and wait.
pub(crate) fn until_contenders(server: &Etcd, name: &str, n: usize) {
    until(&format!("{n} contenders of {name}"), LONG, || contenders(server, name).len() == n);
}

/// How many requests about keys there were.
pub(crate) fn requests(server: &Etcd) -> u64 {
    asked(server, "KV", "Txn") + asked(server, "KV", "Range")
}

/// The same, when there have been no more for a while.
pub(crate) fn settled(server: &Etcd) -> u64 {
    let mut seen = requests(server);
    until("nobody asks any more", LONG, || {
        std::thread::sleep(ms(500));
        std::mem::replace(&mut seen, requests(server)) == seen
    });
    seen
}

/// The lease that a contender's key is named after, as etcdctl writes it.
pub(crate) fn lease_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap()
}

/// How often this was asked of the server.
pub(crate) fn asked(server: &Etcd, service: &str, method: &str) -> u64 {
    let name = |kind: &str| {
        format!(
            "grpc_server_started_total{{grpc_method=\"{method}\",grpc_service=\"etcdserverpb.{service}\",\
             grpc_type=\"{kind}\"}}"
        )
    };
    let kind = if service == "KV" || method == "LeaseGrant" { "unary" } else { "bidi_stream" };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let count = server.figure(&name(kind)) as u64;
    count
}
