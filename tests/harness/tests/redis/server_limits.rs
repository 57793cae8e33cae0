//! Limits of a server: connections killed, idle or too many, no memory, keys evicted.

use dlock::{Kind, ReleaseOutcome};
use dlock_harness::backends::redis::{Redis, RedisOptions};
use dlock_harness::scenario::warnings;

use crate::common::{
    LONG, client, cold, connected, lock, ms, owner, released, server, until, until_clean, until_queued,
};

#[test]
fn killed_connections_are_made_again() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let lease = lock(&a, "k", ms(900)).acquire().wait().unwrap();
    let waiting = lock(&b, "k", LONG).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 1);
    for _ in 0..5 {
        let before = lease.valid_until();
        for kind in ["normal", "pubsub"] {
            server.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
        }
        until("it is renewed on another connection", LONG, || lease.valid_until() > before);
        lease.check().unwrap();
    }
    until_queued(&server, "k", 1);
    released(&lease);
    released(&waiter.join().unwrap());
    until_clean(&server, ms(1000));
}

#[test]
fn an_idle_client_keeps_its_lock() {
    let server = server();
    let client = client(server.addr());
    let lease = lock(&client, "k", ms(30_000)).acquire().wait().unwrap();
    server.command(&["CONFIG", "SET", "timeout", "1"]);
    until("the server has looked for idle ones", LONG, || {
        let clients: String = server.get(&["CLIENT", "LIST"]);
        clients.lines().count() == 1 || clients.contains(" idle=2 ")
    });
    lease.renew(None).wait().unwrap();
    released(&lease);
}

#[test]
fn a_server_with_too_many_clients_says_so() {
    let server = server();
    let client = client(server.addr());
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    server.command(&["CONFIG", "SET", "maxclients", &connected(&server).to_string()]);
    let other = cold(server.addr(), ms(2000));
    let error = lock(&other, "other", LONG).acquire().wait().unwrap_err();
    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
    assert!(error.message().contains("maxclients"), "{error}");
    lease.renew(None).wait().unwrap();
    lease.check().unwrap();
    released(&lease);
    server.command(&["CONFIG", "SET", "maxclients", "100"]);
    released(&lock(&other, "other", LONG).acquire().wait().unwrap());
}

/// Fills it until this comes about.
fn fill(server: &Redis, full: impl Fn() -> bool) {
    let text = "x".repeat(10_000);
    for n in 0..100_000 {
        if server.try_command::<String>(&["SET", &format!("filler{n}"), &text]).is_err() || full() {
            return;
        }
    }
    panic!("it never got full");
}

#[test]
fn a_server_that_evicts_is_warned_of_and_an_evicted_lock_is_lost() {
    let server = Redis::start(&RedisOptions::new().args(&["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"]));
    let server = server.unwrap();
    let told = warnings(&server.port().to_string());
    let client = client(server.addr());
    let note = told.recv_timeout(LONG).expect("a warning");
    assert!(note.contains("allkeys-lru") && note.contains("noeviction"), "{note}");
    assert_eq!(client.diagnose().wait().unwrap(), [note]);
    let lease = lock(&client, "k", ms(20_000)).acquire().wait().unwrap();
    let held = lock(&client, "renewed", ms(600)).acquire().wait().unwrap();
    fill(&server, || owner(&server, "k").is_none());
    assert_eq!(lease.renew(None).wait().unwrap_err().kind(), Kind::Lost);
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Lost);
    drop(held);
}
