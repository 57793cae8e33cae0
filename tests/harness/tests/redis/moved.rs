//! An address that leads to another server, while the one before lives on as its replica.

use dlock_harness::backends::redis::Redis;

use crate::common::{LONG, client, cold, lock, ms, owner, proxy, released, server, until, until_queued};

/// The second has all that the first has, and is a primary; the first is told that it is a replica, and of which.
fn failover(old: &Redis, new: &Redis, master: u16) {
    new.command(&["REPLICAOF", "127.0.0.1", &old.port().to_string()]);
    until("the replica has it all", LONG, || {
        let at = |server: &Redis, field| server.info("replication", field);
        at(new, "master_link_status").as_deref() == Some("up")
            && at(new, "slave_repl_offset") == at(old, "master_repl_offset")
    });
    new.command(&["REPLICAOF", "NO", "ONE"]);
    old.command(&["REPLICAOF", "127.0.0.1", &master.to_string()]);
}

#[test]
fn a_primary_that_became_a_replica_is_left() {
    for stale in [true, false] {
        let (old, new) = (server(), server());
        let proxy = proxy(&old);
        let (a, b) = (client(proxy.addr()), client(proxy.addr()));
        let lease = lock(&a, "k", ms(60_000)).acquire().wait().unwrap();
        let waiting = lock(&b, "k", ms(60_000)).wait(LONG * 3).acquire();
        let waiter = std::thread::spawn(move || waiting.wait().unwrap());
        until_queued(&old, "k", 1);
        // READONLY it says of itself; or MASTERDOWN, when it can't reach its master and is not to tell what may be old.
        let master = if stale { new.port() } else { 1 };
        old.command(&["CONFIG", "SET", "replica-serve-stale-data", if stale { "yes" } else { "no" }]);
        proxy.set_upstream(new.addr());
        failover(&old, &new, master);
        lease.renew(None).wait().unwrap();
        released(&lock(&a, "other", LONG).try_acquire().wait().unwrap().expect("it is free"));
        assert!(!a.break_lock("other").wait().unwrap());
        // Another client of the same address.
        released(&lock(&cold(proxy.addr(), ms(5000)), "other", LONG).acquire().wait().unwrap());
        released(&lease);
        let next = waiter.join().unwrap();
        assert_eq!(owner(&new, "k"), Some(next.token()));
        released(&next);
    }
}

#[test]
fn a_server_that_does_not_serve_for_long_is_not_asked_for_ever_more_connections() {
    let server = server();
    let a = client(server.addr());
    released(&lock(&a, "k", LONG).acquire().wait().unwrap());
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let made = || server.info("stats", "total_connections_received").unwrap().parse::<u32>().unwrap();
    let before = made();
    let call = |n| lock(&a, &format!("k{n}"), LONG).wait(ms(4000)).acquire();
    let waiting: Vec<_> = (0..20).map(call).map(|op| std::thread::spawn(move || op.wait().unwrap_err())).collect();
    waiting.into_iter().for_each(|waiting| drop(waiting.join().unwrap()));
    // 0.1, 0.2, 0.4 and then 0.8 s each was kept; with 0.1 s each there are 30 and more.
    let made = made() - before;
    assert!((2..=15).contains(&made), "{made} connections in 4 s");
}

#[test]
fn what_reached_nobody_is_not_heard_of_at_a_replica() {
    let (old, new) = (server(), server());
    let (a, b) = (client(old.addr()), client(old.addr()));
    let before = lock(&a, "k", ms(60_000)).acquire().wait().unwrap();
    let waiting = lock(&b, "k", ms(60_000)).acquire();
    let canceller = waiting.canceller();
    let waiter = std::thread::spawn(move || waiting.wait());
    until_queued(&old, "k", 1);
    failover(&old, &new, new.port());
    until("the replica follows", LONG, || old.info("replication", "master_link_status").as_deref() == Some("up"));
    let c = client(new.addr());
    // The next is named, and doesn't hear of it; so the lock is free.
    assert!(c.break_lock("k").wait().unwrap());
    let lease = lock(&c, "k", ms(60_000)).try_acquire().wait().unwrap().expect("it is free");
    until("the replica has it all", LONG, || owner(&old, "k") == Some(lease.token()));
    for _ in 0..3 {
        b.ping().wait().unwrap();
    }
    let heard = waiter.is_finished();
    canceller.cancel();
    let result = waiter.join().unwrap();
    assert!(!heard || result.is_err(), "two holders: {result:?} beside {lease:?}");
    assert!(lease.is_held());
    released(&lease);
    drop(before);
}
