//! What the scenarios share: servers, clients that are contenders of their own, and what a server can tell.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use dlock::Client;
use dlock_harness::backends::etcd::{Etcd, EtcdOptions};
use dlock_harness::proxy::Proxy;
use dlock_harness::scenario::answered;
pub(crate) use dlock_harness::scenario::{LONG, acquired, begin, lock, ms, next, released, until};

/// The ttl of a lock whose end is to come soon: the least there is.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

pub(crate) fn server() -> Etcd {
    Etcd::start(&EtcdOptions::new()).unwrap()
}

pub(crate) fn proxy(server: &Etcd) -> Proxy {
    Proxy::new(server.addr()).unwrap()
}

/// A client that shares nothing with any other of this process, and has been answered once.
pub(crate) fn client(addr: SocketAddr) -> Client {
    answered(cold(&addr.to_string()))
}

/// The same without any contact so far; of several endpoints with commas between.
pub(crate) fn cold(endpoints: &str) -> Client {
    // Clients of equal configuration would be one contender.
    let url = format!("etcd://{endpoints}?connect_timeout=5.{:06}", next());
    Client::connect(&url).unwrap()
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
