//! Requests that arrive after whoever sent them has gone, and grants that nobody wants any more.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use dlock::Kind;
use dlock_harness::proxy::{Action, Direction};

use crate::common::{
    LATE, LONG, SLACK, client, client_with, left_over, lock, ms, owner, proxy, released, scripts_run, server, until,
    until_clean, until_queued,
};
use crate::wire_patterns::TAKE;

/// How long an unanswered request of these clients may be accepted: their connect_timeout, and a reaper's pause.
const TIMEOUT: Duration = Duration::from_millis(1000);

#[test]
fn two_hundred_late_acquires_leave_nothing() {
    const WORKERS: u64 = 25;
    const ROUNDS: u64 = 8;
    let server = server();
    // Through which what is left is taken back.
    let networks = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (server, networks) = (&server, &networks);
            scope.spawn(move || {
                let proxy = proxy(server);
                let client = client_with(proxy.addr(), TIMEOUT);
                for n in 0..ROUNDS {
                    let wait = if n % 2 == 0 { ms(100 + 25 * n) } else { LONG };
                    let lock = client.lock(&format!("k{worker}-{n}")).ttl(LONG).wait(wait);
                    let rule = proxy.rule(Direction::ToServer, TAKE, 1..=1, Action::HoldRequest);
                    let begun = Instant::now();
                    if n % 2 == 0 {
                        // On the way out it may still be granted elsewhere; then it is given back like any other.
                        match lock.acquire().wait() {
                            Ok(lease) => released(&lease),
                            Err(error) => assert!(matches!(error.kind(), Kind::Timeout | Kind::Backend), "{error:?}"),
                        }
                        assert!(begun.elapsed() < wait + LATE + SLACK, "{:?}", begun.elapsed());
                    } else {
                        let mut op = lock.acquire();
                        // Nobody but this thread drives it until it is sent, which may take longer than that.
                        while op.wait_for(ms(5 * n)).is_none() && rule.fired() == 0 {}
                        op.cancel();
                        match op.wait() {
                            Ok(lease) => released(&lease),
                            Err(error) => assert_eq!(error.kind(), Kind::Cancelled),
                        }
                        assert!(begun.elapsed() < ms(5 * n + 250) + SLACK, "{:?}", begun.elapsed());
                    }
                    assert_eq!(rule.fired(), 1, "the fault was not injected");
                    proxy.clear_rules();
                    // From at once to long after.
                    std::thread::sleep(ms(worker * 20));
                    proxy.release_held();
                }
                networks.lock().unwrap().push(proxy);
            });
        }
    });
    let begun = Instant::now();
    until_clean(&server, ms(6000));
    println!("200 late acquires: nothing left {:?} after the last", begun.elapsed());
    let other = client(server.addr());
    for worker in 0..WORKERS {
        let lock = other.lock(&format!("k{worker}-0"));
        released(&lock.try_acquire().wait().unwrap().expect("it is free"));
    }
}

#[test]
fn a_request_is_refused_after_its_time() {
    let server = server();
    let proxy = proxy(&server);
    let client = client_with(proxy.addr(), ms(600));
    let rule = proxy.rule(Direction::ToServer, TAKE, 1..=1, Action::HoldRequest);
    let lock = client.lock("k").ttl(ms(1600)).wait(ms(100));
    assert!(lock.acquire().wait().is_err());
    assert_eq!(rule.fired(), 1);
    // Its time is the 600 ms of a request; after that the client looks for what came of it for the last time.
    let mut run = scripts_run(&server);
    let mut quiet = Instant::now();
    until("the client has nothing more to ask", LONG, || {
        let now = scripts_run(&server);
        if now != run {
            (run, quiet) = (now, Instant::now());
        }
        quiet.elapsed() > ms(700)
    });
    proxy.release_held();
    until("the late request is done", LONG, || scripts_run(&server) > run);
    assert_eq!(left_over(&server), Vec::<String>::new());
}

#[test]
fn what_is_handed_to_a_claim_that_has_ended_goes_on_at_once() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&b, "k", LONG * 2).acquire();
    let canceller = waiting.canceller();
    let waiter = std::thread::spawn(move || waiting.wait());
    until_queued(&server, "k", 1);
    let side = ["dlock:q:{k}", "dlock:d:{k}"];
    for key in side {
        // As a failover to an older copy brings it back.
        server.command(&["COPY", key, &format!("{key}:old")]);
    }
    canceller.cancel();
    assert_eq!(waiter.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
    until_queued(&server, "k", 0);
    for key in side {
        server.command(&["RENAME", &format!("{key}:old"), key]);
    }
    released(&holder);
    until("the grant that nobody wants is given back", ms(2000), || owner(&server, "k").is_none());
    until_clean(&server, ms(1000));
}
