//! Server clocks that are set.

use std::time::Duration;

use dlock::ReleaseOutcome;
use dlock_harness::backends::redis::{Redis, RedisOptions};

use crate::common::{LONG, SLACK, client, lock, ms, owner, proxy, released, until_clean, until_queued};

const STEP: Duration = Duration::from_secs(60);

#[test]
fn a_clock_set_forwards_ends_locks_early_and_hangs_nobody() {
    let server = Redis::start(&RedisOptions::new().clock()).unwrap();
    let proxy = proxy(&server);
    let (a, b) = (client(server.addr()), client(proxy.addr()));
    let first = lock(&a, "k", ms(30_000)).acquire().wait().unwrap();
    let waiting = lock(&b, "k", ms(900)).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 1);
    server.step_clock(STEP, true);
    // Its next refresh finds the lock over.
    let second = waiter.join().unwrap();
    assert!(second.fence() > first.fence());
    assert_eq!(first.release().wait().unwrap(), ReleaseOutcome::Lost);
    released(&second);
    // Each client's first request is refused as late, once, and asked again by the new clock.
    for client in [&a, &b] {
        let lease = lock(client, "other", LONG).acquire().wait().unwrap();
        assert_eq!(owner(&server, "other"), Some(lease.token()));
        released(&lease);
    }
    until_clean(&server, SLACK);
}

#[test]
fn a_clock_set_back_keeps_locks_longer_and_hangs_nobody() {
    let server = Redis::start(&RedisOptions::new().clock()).unwrap();
    let (a, b, c) = (client(server.addr()), client(server.addr()), client(server.addr()));
    let first = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&b, "k", ms(900)).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 1);
    server.step_clock(STEP, false);
    first.renew(None).wait().unwrap();
    released(&first);
    let second = waiter.join().unwrap();
    assert!(second.fence() > first.fence(), "the clock went back, the fences didn't");
    released(&second);
    let mut last = second.fence();
    for client in [&a, &b, &c] {
        let lease = lock(client, "k", LONG).acquire().wait().unwrap();
        assert!(lease.fence() > last);
        last = lease.fence();
        released(&lease);
    }
    until_clean(&server, SLACK);
}
