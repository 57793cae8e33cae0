//! Programs that lock the same key by SET NX and compare-and-delete.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dlock_harness::backends::redis::Redis;
use redis::Connection;

use crate::common::{LONG, client, lock, median, ms, queued, released, server, until};

fn connection(server: &Redis) -> Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

fn take(connection: &mut Connection, token: &str) -> bool {
    let mut set = redis::cmd("SET");
    let set: Option<String> = set.arg("k").arg(token).arg("NX").arg("PX").arg(2000).query(connection).unwrap();
    set.is_some()
}

fn give(connection: &mut Connection, token: &str) {
    let script = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
    let given: i64 = redis::cmd("EVAL").arg(script).arg(1).arg("k").arg(token).query(connection).unwrap();
    assert_eq!(given, 1, "taken from a foreign client");
}

#[test]
fn a_foreign_poller_gets_its_share_and_nobody_is_inside_with_it() {
    let server = server();
    let (inside, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (ours, theirs) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let enter = |count: &AtomicUsize, time: Duration| {
        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two inside");
        std::thread::sleep(time);
        inside.fetch_sub(1, Ordering::SeqCst);
        count.fetch_add(1, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let client = client(server.addr());
                while !stop.load(Ordering::Relaxed) {
                    let lease = lock(&client, "k", ms(5000)).acquire().wait().unwrap();
                    enter(&ours, ms(2));
                    released(&lease);
                }
            });
        }
        scope.spawn(|| {
            let mut connection = connection(&server);
            while !stop.load(Ordering::Relaxed) {
                if take(&mut connection, "foreign") {
                    enter(&theirs, ms(20));
                    give(&mut connection, "foreign");
                }
                std::thread::sleep(ms(100));
            }
        });
        std::thread::sleep(ms(4000));
        stop.store(true, Ordering::Relaxed);
    });
    println!("in 4 s: {ours:?} of ours, {theirs:?} of the poller");
    assert!(theirs.into_inner() >= 3, "the poller starves");
    assert!(ours.into_inner() > 20, "we starve");
}

/// How long after a foreign owner's end our waiter comes in.
fn entry(server: &Redis, end: impl Fn() -> Instant) -> Duration {
    server.command(&["SET", "k", "foreign", "PX", "10000"]);
    let client = client(server.addr());
    let waiting = lock(&client, "k", LONG).acquire();
    let waiter = std::thread::spawn(move || {
        let lease = waiting.wait().unwrap();
        (Instant::now(), lease)
    });
    until("it waits, and has the key watched", LONG, || {
        queued(server, "k") == 1 && server.info("stats", "tracking_total_keys").as_deref() == Some("1")
    });
    let ended = end();
    let (entered, lease) = waiter.join().unwrap();
    released(&lease);
    entered.saturating_duration_since(ended)
}

#[test]
fn a_waiter_comes_in_soon_after_a_foreign_owner() {
    let server = server();
    let expiry = || {
        server.command(&["PEXPIRE", "k", "30"]);
        Instant::now() + ms(30)
    };
    let delete = || {
        let now = Instant::now();
        server.command(&["DEL", "k"]);
        now
    };
    let after_delete = median((0..15).map(|_| entry(&server, delete)).collect());
    let after_expiry = median((0..15).map(|_| entry(&server, expiry)).collect());
    println!(
        "median of 15: {after_delete:?} after a foreign delete (goal 50 ms), {after_expiry:?} after an expiry (100 ms)"
    );
    assert!(after_delete < ms(500) && after_expiry < ms(500));
}
