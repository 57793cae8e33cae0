//! Networks that part: in both directions, in one, and under a waiter.

use std::sync::mpsc::channel;

use dlock::clock::Instant;
use dlock::{Kind, ReleaseOutcome};
use dlock_harness::proxy::{Action, Direction, Mode, Proxy};

use crate::common::{
    LONG, SLACK, client, client_with, lock, ms, owner, proxy, queued, released, server, until, until_clean,
    until_queued,
};
use crate::wire_patterns::TAKE;

/// A stream of which a part was lost is never gone on with.
fn heal(proxy: &Proxy, lost: bool) {
    if lost {
        proxy.cut();
    }
    proxy.both(Mode::Pass);
}

/// The holder is cut off for longer than its ttl, then the network heals.
fn cut_off(name: &str, cut: &[(Direction, Mode)]) {
    let ttl = ms(900);
    let server = server();
    let (direct, proxy) = (client(server.addr()), proxy(&server));
    let client = client_with(proxy.addr(), ms(1000));
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    let (tell, told) = channel();
    lease.on_lost_here(move || tell.send(Instant::now()).unwrap());
    for (direction, mode) in cut {
        proxy.set(*direction, *mode);
    }
    let second = lock(&direct, "k", LONG * 2).auto_renew(false).acquire();
    let second = std::thread::spawn(move || second.wait().unwrap());
    let loss = told.recv_timeout(ttl * 3).expect("the loss is told");
    let end = lease.valid_until();
    println!("{name}: told {:?} before the end, {:?} after it", end - loss, loss - end);
    assert!(loss < end.plus(SLACK));
    assert_eq!(lease.check().unwrap_err().kind(), Kind::Lost);
    let second = second.join().unwrap();
    assert!(second.is_held() && second.fence() > lease.fence());
    let left = |server: &dlock_harness::backends::redis::Redis| server.get::<i64>(&["PTTL", "k"]);
    let before = left(&server);
    heal(&proxy, cut.iter().any(|(_, mode)| *mode == Mode::Drop));
    // What was under way arrives, and the old holder is heard again.
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Lost);
    until("it is connected again", LONG, || client.ping().wait().is_ok());
    assert!(lock(&client, "k", ttl).try_acquire().wait().unwrap().is_none());
    assert_eq!(owner(&server, "k"), Some(second.token()));
    assert!(left(&server) <= before, "prolonged by somebody who has lost it");
    released(&second);
    let again = lock(&client, "k", ttl).acquire().wait().unwrap();
    assert!(again.fence() > second.fence());
    released(&again);
}

#[test]
fn a_holder_that_is_cut_off_loses_it_in_time_and_touches_nothing_later() {
    use Direction::{ToClient, ToServer};
    let cuts: [(&str, &[(Direction, Mode)]); 5] = [
        ("both ways, lost", &[(ToServer, Mode::Drop), (ToClient, Mode::Drop)]),
        ("both ways, late", &[(ToServer, Mode::Hold), (ToClient, Mode::Hold)]),
        ("requests lost", &[(ToServer, Mode::Drop)]),
        ("requests late", &[(ToServer, Mode::Hold)]),
        ("replies lost", &[(ToClient, Mode::Drop)]),
    ];
    std::thread::scope(|scope| {
        for (name, cut) in cuts {
            scope.spawn(move || cut_off(name, cut));
        }
    });
}

#[test]
fn a_partition_shorter_than_the_lease_is_no_loss() {
    let ttl = ms(1500);
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    for mode in [Mode::Drop, Mode::Hold] {
        let before = lease.valid_until();
        proxy.both(mode);
        // Until two renewals have had no answer.
        until("half of it is over", LONG, || before.left() < ttl / 2);
        heal(&proxy, mode == Mode::Drop);
        until("it is renewed", ttl, || lease.valid_until() > before);
        lease.check().unwrap();
    }
    released(&lease);
}

#[test]
fn a_waiter_that_is_cut_off_does_not_keep_the_lock() {
    let ttl = ms(600);
    let server = server();
    let (direct, proxy) = (client(server.addr()), proxy(&server));
    let (third, client) = (client(server.addr()), client_with(proxy.addr(), ms(1000)));
    let holder = lock(&direct, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&client, "k", ttl).wait(ms(300)).acquire();
    let waiter = std::thread::spawn(move || waiting.wait());
    until_queued(&server, "k", 1);
    proxy.both(Mode::Drop);
    released(&holder);
    let begun = std::time::Instant::now();
    let lease = lock(&third, "k", LONG).acquire().wait().unwrap();
    println!("a half-open waiter kept the lock for {:?}", begun.elapsed());
    assert!(begun.elapsed() < ttl / 3 * 3 + ttl + SLACK);
    assert!(waiter.join().unwrap().is_err());
    heal(&proxy, true);
    until("it is connected again", LONG, || client.ping().wait().is_ok());
    assert_eq!((owner(&server, "k"), queued(&server, "k")), (Some(lease.token()), 0));
    released(&lease);
    until_clean(&server, ms(3000));
}

#[test]
fn a_silent_connection_is_replaced_whatever_the_patience() {
    let server = server();
    std::thread::scope(|scope| {
        for timeout in [400, 900, 1100, 5000] {
            let server = &server;
            scope.spawn(move || {
                let proxy = proxy(server);
                let client = client_with(proxy.addr(), ms(timeout));
                let rule = proxy.rule(Direction::ToServer, TAKE, 1..=1, Action::DropReplyAfterForward);
                let lock = client.lock(&format!("k{timeout}")).wait(ms(300));
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
