//! Networks that part: in both directions, in one, and under a waiter.

use std::sync::mpsc::channel;

use dlock::clock::Instant;
use dlock::{Kind, ReleaseOutcome};
use dlock_harness::backends::Request;
use dlock_harness::proxy::Direction::{ToClient, ToServer};
use dlock_harness::proxy::{Action, Direction, Mode};

use crate::common::{
    LONG, On, SLACK, acquired, begin, heal, lock, ms, proxy, released, until, until_clean, until_contenders,
};

scenarios! {
    a_holder_that_is_cut_off_loses_it_in_time_and_touches_nothing_later;
    a_partition_shorter_than_the_lease_is_no_loss needs Reconnect;
    a_waiter_that_is_cut_off_does_not_keep_the_lock;
    a_waiter_that_is_cut_off_is_passed_over_and_comes_back;
    a_silent_connection_is_replaced_whatever_the_patience;
}

/// What is done to each direction.
type Cut = &'static [(Direction, Mode)];

fn is_lossy(cut: Cut) -> bool {
    cut.iter().any(|(_, mode)| *mode == Mode::Drop)
}

/// The holder is cut off for longer than its ttl, then the network heals.
fn cut_off(on: On, name: &str, cut: Cut) {
    let ttl = on.ttl(ms(900));
    let server = on.server();
    let (direct, proxy) = (on.client(server.addr()), proxy(&*server));
    let client = on.client_with(proxy.addr(), ms(1000));
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    let (tell, told) = channel();
    lease.on_lost_here(move || tell.send(Instant::now()).unwrap());
    for (direction, mode) in cut {
        proxy.set(*direction, *mode);
    }
    let second = begin(&lock(&direct, "k", LONG * 2).wait(LONG * 6).auto_renew(false));
    let loss = told.recv_timeout(ttl * 3).expect("the loss is told");
    assert!(!second.is_finished(), "{name}: another has it already");
    let end = lease.valid_until();
    println!("{name}: told {:?} before the end, {:?} after it", end - loss, loss - end);
    assert!(loss < end.plus(SLACK));
    assert_eq!(lease.check().unwrap_err().kind(), Kind::Lost);
    let second = second.join().unwrap().unwrap();
    assert!(second.is_held() && second.fence() > lease.fence());
    let before = server.time_left("k");
    heal(&proxy, is_lossy(cut));
    // What was under way arrives, and the old holder is heard again.
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Lost);
    until("it is connected again", LONG, || client.ping().wait().is_ok());
    assert!(lock(&client, "k", ttl).try_acquire().wait().unwrap().is_none());
    assert!(server.is_held_by("k", &second));
    until("nothing of the first is left", LONG, || server.contenders("k") == 1);
    assert!(server.time_left("k") <= before, "prolonged by somebody who has lost it");
    released(&second);
    let again = lock(&client, "k", ttl).acquire().wait().unwrap();
    assert!(again.fence() > second.fence());
    released(&again);
}

fn a_holder_that_is_cut_off_loses_it_in_time_and_touches_nothing_later(on: On) {
    let cuts: [(&str, Cut); 5] = [
        ("both ways, lost", &[(ToServer, Mode::Drop), (ToClient, Mode::Drop)]),
        ("both ways, late", &[(ToServer, Mode::Hold), (ToClient, Mode::Hold)]),
        ("requests lost", &[(ToServer, Mode::Drop)]),
        ("requests late", &[(ToServer, Mode::Hold)]),
        ("replies lost", &[(ToClient, Mode::Drop)]),
    ];
    std::thread::scope(|scope| {
        for (name, cut) in cuts {
            scope.spawn(move || cut_off(on, name, cut));
        }
    });
}

fn a_partition_shorter_than_the_lease_is_no_loss(on: On) {
    // Long enough for a new connection in what is left of it.
    let ttl = ms(1500).max(on.backend.min_ttl() * 3);
    let server = on.server();
    let proxy = proxy(&*server);
    let client = on.client(proxy.addr());
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    let cuts: [Cut; 3] = [
        &[(ToServer, Mode::Drop), (ToClient, Mode::Drop)],
        &[(ToServer, Mode::Hold), (ToClient, Mode::Hold)],
        &[(ToClient, Mode::Drop)],
    ];
    for cut in cuts {
        for (direction, mode) in cut {
            proxy.set(*direction, *mode);
        }
        // What has come before the cut is read by then.
        std::thread::sleep(ms(50));
        let before = lease.valid_until();
        // Until two renewals have had no answer.
        until("half of it is over", LONG, || before.left() < ttl / 2);
        assert!(lease.is_held() && lease.valid_until() == before, "it counts from what was answered");
        heal(&proxy, is_lossy(cut));
        until("it is renewed", ttl, || lease.valid_until() > before);
        lease.check().unwrap();
    }
    released(&lease);
}

fn a_waiter_that_is_cut_off_does_not_keep_the_lock(on: On) {
    let ttl = on.ttl(ms(600));
    let server = on.server();
    let (direct, proxy) = (on.client(server.addr()), proxy(&*server));
    let (third, client) = (on.client(server.addr()), on.client_with(proxy.addr(), ms(1000)));
    let holder = acquired(&direct, "k");
    let waiter = begin(&lock(&client, "k", ttl).wait(ms(300)));
    until_contenders(&*server, "k", 2);
    proxy.both(Mode::Drop);
    released(&holder);
    let begun = std::time::Instant::now();
    let lease = lock(&third, "k", LONG).acquire().wait().unwrap();
    println!("a half-open waiter kept the lock for {:?}", begun.elapsed());
    assert!(begun.elapsed() < ttl + on.end(ttl) + SLACK);
    assert!(waiter.join().unwrap().is_err());
    heal(&proxy, true);
    until("it is connected again", LONG, || client.ping().wait().is_ok());
    assert!(server.is_held_by("k", &lease));
    until_contenders(&*server, "k", 1);
    released(&lease);
    until_clean(&*server, ms(3000));
}

fn a_waiter_that_is_cut_off_is_passed_over_and_comes_back(on: On) {
    let ttl = on.ttl(ms(600));
    let server = on.server();
    let (a, proxy, c) = (on.client(server.addr()), proxy(&*server), on.client(server.addr()));
    // It isn't told of an outage before its place has ended.
    let b = on.client_with(proxy.addr(), on.end(ttl) + ms(5000));
    let holder = acquired(&a, "k");
    let cut_off = begin(&lock(&b, "k", ttl).wait(LONG * 2));
    until_contenders(&*server, "k", 2);
    let third = begin(&lock(&c, "k", ms(30_000)));
    until_contenders(&*server, "k", 3);
    proxy.both(Mode::Drop);
    released(&holder);
    let lease = third.join().unwrap().expect("the second holds up nobody for longer than its ttl");
    assert!(!cut_off.is_finished(), "it was granted what it can't have");
    heal(&proxy, true);
    until_contenders(&*server, "k", 2);
    released(&lease);
    let last = cut_off.join().unwrap().unwrap();
    assert!(last.fence() > lease.fence());
    released(&last);
}

fn a_silent_connection_is_replaced_whatever_the_patience(on: On) {
    let server = on.server();
    std::thread::scope(|scope| {
        for timeout in [400, 900, 1100, 5000] {
            let server = &*server;
            scope.spawn(move || {
                let proxy = proxy(server);
                let client = on.client_with(proxy.addr(), ms(timeout));
                let lock = client.lock(&format!("k{timeout}")).wait(ms(300));
                let pattern = on.pattern(Request::Acquire, lock.key());
                let rule = proxy.rule(ToServer, pattern, 1..=1, Action::DropReplyAfterForward);
                let begun = std::time::Instant::now();
                until("it is locked", LONG, || match lock.acquire().wait() {
                    Ok(lease) => lease.release().wait().is_ok(),
                    Err(_) => false,
                });
                println!("connect_timeout {timeout} ms: locked on another connection after {:?}", begun.elapsed());
                assert_eq!(rule.fired(), 1);
            });
        }
    });
}
