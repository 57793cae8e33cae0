//! Keys of another program's where a lock, or what dlock keeps beside it, is to be.

use dlock::{Error, Kind};
use dlock_harness::backends::redis::Redis;

use crate::common::{LONG, client, lock, ms, owner, queued, released, server, until_queued};

/// A key of each type that is no lock.
fn fill(server: &Redis, key: &str, kind: &str) {
    match kind {
        "hash" => server.command(&["HSET", key, "name", "somebody"]),
        "list" => server.command(&["RPUSH", key, "a"]),
        "set" => server.command(&["SADD", key, "a"]),
        "zset" => server.command(&["ZADD", key, "1", "a"]),
        "stream" => server.command(&["XADD", key, "1-1", "f", "v"]),
        _ => server.command(&["SET", key, "a"]),
    };
}

fn names(error: &Error, kind: &str, key: &str) {
    assert!(error.kind() == Kind::Backend && !error.is_temporary(), "{error:?}");
    assert!(error.message().contains(kind) && error.message().contains(key), "{error}");
}

#[test]
fn what_is_no_lock_is_not_broken() {
    let server = server();
    let client = client(server.addr());
    for kind in ["hash", "list", "set", "zset", "stream"] {
        fill(&server, kind, kind);
        for error in [
            client.break_lock(kind).wait().unwrap_err(),
            client.contenders(kind).wait().unwrap_err(),
            client.lock(kind).try_acquire().wait().unwrap_err(),
            lock(&client, kind, LONG).acquire().wait().unwrap_err(),
        ] {
            names(&error, kind, kind);
        }
        assert_eq!(server.get::<String>(&["TYPE", kind]), kind);
    }
    assert!(server.keys("dlock:[qd]:*").is_empty());
    // A lock of Redisson's is one, a hash with its only other field isn't.
    let owner = "01234567-89ab-cdef-0123-456789abcdef:1";
    server.command(&["HSET", "lock", owner, "1", "mode", "read"]);
    assert!(client.contenders("lock").wait().unwrap()[0].held);
    assert!(client.lock("lock").try_acquire().wait().unwrap().is_none());
    assert!(client.break_lock("lock").wait().unwrap());
    assert!(server.keys("lock").is_empty());
    server.command(&["HSET", "lock", "mode", "dark"]);
    names(&client.break_lock("lock").wait().unwrap_err(), "hash", "lock");
}

#[test]
fn a_lock_without_a_fence_is_not_left_behind() {
    let server = server();
    let client = client(server.addr());
    fill(&server, "dlock:f:{k}", "hash");
    for error in [
        client.lock("k").try_acquire().wait().unwrap_err(),
        lock(&client, "k", LONG).acquire().wait().unwrap_err(),
        client.contenders("k").wait().unwrap_err(),
    ] {
        names(&error, "hash", "dlock:f:{k}");
    }
    assert_eq!(server.keys("*[{]k}"), ["dlock:f:{k}"]);
    assert_eq!(owner(&server, "k"), None);
    assert!(!client.break_lock("k").wait().unwrap());
}

#[test]
fn a_queue_that_is_none_is_told_and_nothing_is_left_in_it() {
    for side in ["dlock:q:{k}", "dlock:d:{k}"] {
        let server = server();
        let (a, b) = (client(server.addr()), client(server.addr()));
        let lease = lock(&a, "k", LONG).acquire().wait().unwrap();
        fill(&server, side, "list");
        names(&lock(&b, "k", LONG).acquire().wait().unwrap_err(), "list", side);
        names(&b.contenders("k").wait().unwrap_err(), "list", side);
        assert_eq!(server.keys("dlock:[qd]:{k}"), [side]);
        lease.renew(None).wait().unwrap();
        released(&lease);
        assert_eq!((owner(&server, "k"), server.get::<String>(&["TYPE", side])), (None, "list".to_owned()));
        match lock(&b, "k", LONG).acquire().wait() {
            // Where nobody waits, nothing is to be told of anybody.
            Ok(lease) => released(&lease),
            Err(error) => names(&error, "list", "dlock:q:{k}"),
        }
        assert_eq!((owner(&server, "k"), server.get::<String>(&["TYPE", side])), (None, "list".to_owned()));
    }
}

#[test]
fn one_strange_key_is_one_locks_trouble() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let lost = lock(&a, "k", LONG).token("mine").acquire().wait().unwrap();
    let kept = lock(&a, "other", ms(900)).acquire().wait().unwrap();
    let waiting = lock(&b, "other", LONG).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "other", 1);
    server.command(&["DEL", "dlock:f:{k}"]);
    fill(&server, "dlock:f:{k}", "hash");
    // Renewals of one client go together.
    let end = kept.valid_until();
    let (one, other) = (lost.renew(None), kept.renew(None));
    assert_eq!(one.wait().unwrap_err().kind(), Kind::Lost, "nothing proves it any more");
    other.wait().unwrap();
    assert!(kept.valid_until() > end);
    released(&kept);
    released(&waiter.join().unwrap());
}

#[test]
fn a_release_gives_back_though_the_next_cant_be_named() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let lease = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&b, "k", ms(600)).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap_err());
    until_queued(&server, "k", 1);
    server.command(&["DEL", "dlock:f:{k}"]);
    fill(&server, "dlock:f:{k}", "hash");
    released(&lease);
    names(&waiter.join().unwrap(), "hash", "dlock:f:{k}");
    assert_eq!((owner(&server, "k"), queued(&server, "k")), (None, 0));
}
