//! A server, or a proxy before it, that doesn't know HELLO: messages come on a connection of their own, and keys of
//! other clients are looked at now and then.

use std::time::{Duration, Instant};

use dlock_harness::backends::redis::{Redis, RedisOptions};

use crate::common::{client, connected, lock, ms, owner, released, until_clean, until_queued};

/// Much sooner than a waiter of such a lock asks again by itself.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn without_hello_a_lock_is_handed_over_by_message() {
    let server = Redis::start(&RedisOptions::new().args(&["--rename-command", "HELLO", ""])).unwrap();
    let before = connected(&server);
    let (one, other) = (client(server.addr()), client(server.addr()));
    assert_eq!(connected(&server), before + 4, "two connections a client");
    let lease = lock(&one, "k", ms(30_000)).acquire().wait().unwrap();
    let next = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| lock(&other, "k", ms(30_000)).acquire().wait().unwrap());
        until_queued(&server, "k", 1);
        let begun = Instant::now();
        released(&lease);
        let next = waiter.join().unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        next
    });
    assert!(next.fence() > lease.fence());
    released(&next);
    until_clean(&server, SOON);
}

#[test]
fn without_hello_another_clients_key_is_waited_for() {
    let server = Redis::start(&RedisOptions::new().args(&["--rename-command", "HELLO", ""])).unwrap();
    let client = client(server.addr());
    server.command(&["SET", "k", "somebody"]);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| lock(&client, "k", ms(30_000)).acquire().wait().unwrap());
        until_queued(&server, "k", 1);
        let begun = Instant::now();
        server.command(&["DEL", "k"]);
        let lease = waiter.join().unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(owner(&server, "k"), Some(lease.token()));
        released(&lease);
    });
}
