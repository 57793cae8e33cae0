//! Who waits is told in time, whatever happens to the watcher.

use std::time::Instant;

use dlock_harness::proxy::{Direction, Mode};

use crate::common::{
    LONG, acquired, begin, client, cold, contenders, lease_of, lock, ms, proxy, released, server, until,
    until_contenders,
};

#[test]
fn a_release_between_reading_and_listening_is_heard() {
    let server = server();
    let (a, proxy) = (client(server.addr()), proxy(&server));
    let b = client(proxy.addr());
    let holder = acquired(&a, "k");
    // The watcher is asked for long after the release.
    proxy.set(Direction::ToServer, Mode::Delay(ms(400)));
    let begun = Instant::now();
    let waiter = begin(&lock(&b, "k", ms(60_000)));
    until_contenders(&server, "k", 2);
    released(&holder);
    let lease = waiter.join().unwrap().expect("it is told, and doesn't wait for its next look after 20 s");
    println!("granted {:?} after it was asked for", begun.elapsed());
    proxy.set(Direction::ToServer, Mode::Pass);
    released(&lease);
}

#[test]
fn a_waiter_is_woken_after_a_compaction() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = acquired(&a, "k");
    let waiter = begin(&lock(&b, "k", ms(60_000)));
    until_contenders(&server, "k", 2);
    for n in 0..20 {
        server.ctl(&["put", "other", &n.to_string()]);
    }
    let revision = server.figure("etcd_debugging_mvcc_current_revision");
    server.ctl(&["compact", &revision.to_string()]);
    released(&holder);
    released(&waiter.join().unwrap().unwrap());
}

#[test]
fn a_waiter_whose_connection_is_silent_looks_elsewhere() {
    let server = server();
    let (a, silent) = (client(server.addr()), proxy(&server));
    let b = cold(&format!("{},{}", silent.addr(), server.addr()));
    released(&acquired(&b, "warm"));
    let holder = acquired(&a, "k");
    let waiter = begin(&lock(&b, "k", ms(6000)));
    until_contenders(&server, "k", 2);
    assert!(silent.connections() > 0, "it waits somewhere else");
    silent.both(Mode::Drop);
    released(&holder);
    released(&waiter.join().unwrap().expect("it looks every 2 s"));
}

#[test]
fn a_waiter_whose_key_was_deleted_is_not_granted_with_the_next() {
    let server = server();
    let (a, b, c) = (client(server.addr()), client(server.addr()), client(server.addr()));
    let holder = acquired(&a, "k");
    let second = begin(&lock(&b, "k", ms(30_000)));
    until_contenders(&server, "k", 2);
    let third = begin(&lock(&c, "k", ms(30_000)));
    until_contenders(&server, "k", 3);
    let key = contenders(&server, "k")[1].clone();
    server.ctl(&["del", &key]);
    released(&holder);
    // Whoever comes first, the other one waits for it.
    let mut waiting = vec![second, third];
    for _ in 0..2 {
        until("one of them has come in", LONG, || waiting.iter().any(std::thread::JoinHandle::is_finished));
        std::thread::sleep(ms(300));
        let done = waiting.iter().position(std::thread::JoinHandle::is_finished).unwrap();
        let lease = waiting.remove(done).join().unwrap().unwrap();
        assert!(!waiting.iter().any(std::thread::JoinHandle::is_finished), "two holders");
        released(&lease);
    }
}

#[test]
fn a_waiter_whose_key_goes_with_all_others_begins_anew() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    for round in 0..10 {
        let holder = acquired(&a, "k");
        let waiter = begin(&lock(&b, "k", ms(30_000)));
        until_contenders(&server, "k", 2);
        std::thread::sleep(ms(20 * round));
        // One revision takes the key before its own, and its own.
        server.ctl(&["del", "--prefix", "k/"]);
        let lease = waiter.join().unwrap().unwrap();
        let holders = b.contenders("k").wait().unwrap();
        assert!(holders.len() == 1 && holders[0].fence == lease.fence(), "its key isn't there: {holders:?}");
        released(&lease);
        drop(holder);
    }
}

#[test]
fn a_waiter_whose_lease_has_ended_begins_anew() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = acquired(&a, "k");
    let waiter = begin(&lock(&b, "k", ms(30_000)));
    until_contenders(&server, "k", 2);
    let first = contenders(&server, "k")[1].clone();
    server.ctl(&["lease", "revoke", lease_of(&first)]);
    until("it stands there under another lease", LONG, || {
        let now = contenders(&server, "k");
        now.len() == 2 && now[1] != first
    });
    released(&holder);
    released(&waiter.join().unwrap().unwrap());
}
