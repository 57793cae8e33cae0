//! What the scenarios share: servers, clients that are contenders of their own, and what a server can tell.

use std::net::SocketAddr;

use dlock::Client;
use dlock_harness::backends::TestServer;
use dlock_harness::backends::etcd::{Etcd, EtcdOptions};
use dlock_harness::proxy::Proxy;
use dlock_harness::scenario::answered;
pub(crate) use dlock_harness::scenario::{LONG, acquired, begin, lock, ms, next, released, until, until_contenders};

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

/// The keys of holder and queue, in their order.
pub(crate) fn contenders(server: &Etcd, name: &str) -> Vec<String> {
    TestServer::queue(server, name)
}

/// How many requests about keys there were.
pub(crate) fn requests(server: &Etcd) -> u64 {
    TestServer::requests(server)
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
    server.asked(service, method)
}
