//! Connections that are cut again and again, and bytes that come one by one, under contention.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dlock::Kind;
use dlock_harness::backends::redis::Redis;
use dlock_harness::proxy::{Mode, Proxy};

use crate::common::{LONG, alone, client, connected, ms, proxy, released, server, until, until_clean};

/// What several contenders saw.
#[derive(Debug, Default)]
struct Seen {
    ready: AtomicUsize,
    stop: AtomicBool,
    inside: AtomicUsize,
    entered: AtomicU64,
    last_fence: AtomicU64,
    failed: AtomicU64,
}

impl Seen {
    /// Takes the lock again and again until told to stop, and looks whether it is alone.
    fn contend(&self, addr: SocketAddr) {
        let client = client(addr);
        self.ready.fetch_add(1, Ordering::SeqCst);
        while !self.stop.load(Ordering::Relaxed) {
            match client.lock("k").ttl(ms(3000)).wait(ms(4000)).acquire().wait() {
                Ok(lease) => {
                    assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two inside");
                    let fence = lease.fence().unwrap();
                    assert!(self.last_fence.swap(fence, Ordering::SeqCst) < fence, "fences go on increasing");
                    std::thread::sleep(ms(1));
                    assert!(lease.is_held());
                    self.inside.fetch_sub(1, Ordering::SeqCst);
                    self.entered.fetch_add(1, Ordering::Relaxed);
                    released(&lease);
                }
                Err(error) => {
                    assert!(matches!(error.kind(), Kind::Timeout | Kind::Backend), "{error:?}");
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Several contend through a proxy while something is done to it; nothing of it stays.
fn under(server: &Redis, proxy: &Proxy, time: Duration, mut fault: impl FnMut()) -> Seen {
    const CLIENTS: usize = 5;
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| seen.contend(proxy.addr()));
        }
        until("all have begun", LONG, || seen.ready.load(Ordering::SeqCst) == CLIENTS);
        let end = Instant::now() + time;
        while Instant::now() < end {
            fault();
            let members: Vec<String> = server.get(&["ZRANGE", "dlock:q:{k}", "0", "-1"]);
            let contenders: HashSet<_> = members.iter().collect();
            assert!(members.len() <= CLIENTS && contenders.len() == members.len(), "{members:?}");
        }
        seen.stop.store(true, Ordering::Relaxed);
    });
    until_clean(server, ms(6000));
    seen
}

#[test]
fn connections_that_are_cut_every_50_ms_leave_nothing() {
    if !alone("connection_churn::connections_that_are_cut_every_50_ms_leave_nothing") {
        return;
    }
    let server = server();
    let proxy = proxy(&server);
    // The runtime and the server's tables are there before counting.
    drop(client(proxy.addr()));
    let count = |connections: usize| {
        until("connections are closed", LONG, || connected(&server) <= connections);
        descriptors()
    };
    let (connections, before) = (connected(&server).min(1), count(1));
    let mut cut = 0;
    let seen = under(&server, &proxy, ms(3000), || {
        std::thread::sleep(ms(50));
        cut += proxy.cut();
    });
    println!("{cut} connections cut, {:?} entered, {:?} failed", seen.entered, seen.failed);
    assert!(cut > 30, "the fault was not injected");
    assert!(seen.entered.into_inner() > 0, "no progress");
    until("descriptors are closed", LONG, || count(connections) <= before);
}

#[test]
fn bytes_that_come_one_by_one_are_understood() {
    let server = server();
    let proxy = proxy(&server);
    let seen = under(&server, &proxy, ms(2500), || {
        proxy.both(Mode::Fragment(1));
        std::thread::sleep(ms(20));
    });
    println!("one byte at a time: {:?} entered, {:?} failed", seen.entered, seen.failed);
    assert!(seen.entered.into_inner() > 5, "no progress");
    assert_eq!(seen.failed.into_inner(), 0);
}
