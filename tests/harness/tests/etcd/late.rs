//! Requests and replies that are lost or late.

use std::time::Instant;

use dlock::Kind;
use dlock_harness::proxy::{Action, Direction, Mode};

use crate::common::{
    LONG, SHORT, acquired, asked, begin, client, cold, contenders, lock, ms, proxy, released, server, until,
    until_contenders,
};

/// What only a put has: the beginning of what dlock writes into a key.
const PUT: &str = "1 dlock:";

fn keys() -> impl Iterator<Item = String> {
    (0..16).map(|n| format!("k{n}"))
}

#[test]
fn an_acquire_whose_reply_is_lost_is_granted() {
    let server = server();
    let (proxy, other) = (proxy(&server), client(server.addr()));
    let client = client(proxy.addr());
    let rule = proxy.rule(Direction::ToClient, "k/", 1..=1, Action::CutBefore);
    let lease = acquired(&client, "k");
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    assert_eq!(contenders(&server, "k").len(), 1);
    released(&lease);
    released(&acquired(&other, "k"));
}

#[test]
fn an_acquire_cut_before_the_server_is_granted() {
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let rule = proxy.rule(Direction::ToServer, PUT, 1..=1, Action::CutBefore);
    let lease = acquired(&client, "k");
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    released(&lease);
}

#[test]
fn a_release_whose_reply_is_lost_is_released() {
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let lease = acquired(&client, "k");
    proxy.set(Direction::ToClient, Mode::Drop);
    let release = lease.release();
    let done = std::thread::spawn(move || release.wait());
    until_contenders(&server, "k", 0);
    proxy.cut();
    proxy.set(Direction::ToClient, Mode::Pass);
    assert_eq!(done.join().unwrap().unwrap(), dlock::ReleaseOutcome::Released);
}

#[test]
fn a_late_put_locks_nobody_out() {
    let server = server();
    let (proxy, other) = (proxy(&server), client(server.addr()));
    let client = client(proxy.addr());
    // Under the same lease, which therefore lives on.
    let beside = lock(&client, "beside", ms(3000)).acquire().wait().unwrap();
    let rule = proxy.rule(Direction::ToServer, PUT, 1..=1, Action::HoldRequest);
    // Asked again on another connection; the first ones may still arrive. A server that sees the connection end may drop
    // some, hence many.
    let waiting: Vec<_> = keys().map(|key| begin(&lock(&client, &key, ms(3000)))).collect();
    let leases: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().unwrap().unwrap()).collect();
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    leases.iter().for_each(released);
    let asked_before = asked(&server, "KV", "Txn");
    proxy.release_held();
    until("a late request is done", LONG, || asked(&server, "KV", "Txn") > asked_before);
    let begun = Instant::now();
    for key in keys() {
        let next = lock(&other, &key, ms(30_000)).wait(ms(4000)).acquire().wait();
        released(&next.expect("what a late request put is deleted"));
    }
    println!("free {:?} after a late put", begun.elapsed());
    assert!(beside.is_held());
    let fresh = lock(&client, "fresh", ms(3000)).acquire().wait().unwrap();
    let lease_of = |name| contenders(&server, name)[0].rsplit('/').next().unwrap().to_owned();
    assert_ne!(lease_of("fresh"), lease_of("beside"), "that lease is given to no further claim");
    released(&fresh);
    released(&beside);
}

#[test]
fn a_late_release_deletes_nothing_of_the_next() {
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let first: Vec<_> = keys().map(|key| acquired(&client, &key)).collect();
    let rule = proxy.rule(Direction::ToServer, "/", 1..=1, Action::HoldRequest);
    std::thread::scope(|scope| first.iter().for_each(|lease| drop(scope.spawn(|| released(lease)))));
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    let next: Vec<_> = keys().map(|key| acquired(&client, &key)).collect();
    let (there, before) = (server.keys("k"), asked(&server, "KV", "Txn"));
    proxy.release_held();
    until("a late request is done", LONG, || asked(&server, "KV", "Txn") > before);
    std::thread::sleep(ms(200));
    assert_eq!(server.keys("k"), there, "a key of the next ones is gone");
    assert!(next.iter().all(dlock::Lease::is_held));
    next.iter().for_each(released);
}

#[test]
fn a_waiter_whose_time_is_up_or_that_is_cancelled_leaves_the_queue() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = acquired(&a, "k");
    let begun = Instant::now();
    let error = lock(&b, "k", ms(30_000)).wait(ms(300)).acquire().wait().unwrap_err();
    assert!(error.kind() == Kind::Timeout && begun.elapsed() < ms(1000), "{error:?}");
    assert_eq!(contenders(&server, "k").len(), 1);
    let waiting = lock(&b, "k", ms(30_000)).acquire();
    let canceller = waiting.canceller();
    let waiter = std::thread::spawn(move || waiting.wait());
    until_contenders(&server, "k", 2);
    canceller.cancel();
    assert_eq!(waiter.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(contenders(&server, "k").len(), 1);
    released(&holder);
}

/// What is sent in these directions is lost without a sign.
fn cut_off(lost: &[Direction]) {
    let server = server();
    let (proxy, other) = (proxy(&server), client(server.addr()));
    let client = client(proxy.addr());
    let lease = lock(&client, "k", SHORT).acquire().wait().unwrap();
    let waiter = begin(&lock(&other, "k", ms(30_000)));
    until_contenders(&server, "k", 2);
    lost.iter().for_each(|direction| proxy.set(*direction, Mode::Drop));
    let begun = Instant::now();
    assert!(lease.lost_within(Some(LONG)).wait().unwrap());
    assert!(!waiter.is_finished(), "another has it already");
    let next = waiter.join().unwrap().unwrap();
    println!("{lost:?} cut off: granted after {:?}", begun.elapsed());
    proxy.cut();
    proxy.both(Mode::Pass);
    assert!(!lease.is_held() && next.is_held());
    assert_eq!(lease.release().wait().unwrap(), dlock::ReleaseOutcome::Lost);
    until("nothing of the first is left", LONG, || contenders(&server, "k").len() == 1);
    released(&next);
}

#[test]
fn a_holder_that_is_cut_off_loses_it_before_another_has_it() {
    cut_off(&[Direction::ToServer, Direction::ToClient]);
}

#[test]
fn so_does_one_whose_requests_are_lost() {
    cut_off(&[Direction::ToServer]);
}

#[test]
fn so_does_one_whose_replies_are_lost() {
    cut_off(&[Direction::ToClient]);
}

#[test]
fn a_paused_server_is_told_in_time() {
    let server = server();
    let client = client(server.addr());
    let held = acquired(&client, "held");
    server.pause();
    let begun = Instant::now();
    let error = client.lock("k").wait(ms(500)).acquire().wait().unwrap_err();
    println!("{error} after {:?}", begun.elapsed());
    assert!(matches!(error.kind(), Kind::Timeout | Kind::Backend) && error.is_temporary());
    assert!(begun.elapsed() < ms(500 + 100 + 400), "{:?}", begun.elapsed());
    server.resume();
    released(&acquired(&client, "k"));
    released(&held);
}

#[test]
fn a_lease_whose_grant_was_never_answered_is_taken_back() {
    let server = server();
    let proxy = proxy(&server);
    let leases = || server.ctl(&["lease", "list"]).lines().count();
    let none = leases();
    let client = cold(&proxy.addr().to_string());
    proxy.set(Direction::ToClient, Mode::Drop);
    let waiter = begin(&lock(&client, "k", ms(30_000)));
    until("a lease was granted", LONG, || leases() > none);
    proxy.cut();
    proxy.set(Direction::ToClient, Mode::Pass);
    let lease = waiter.join().unwrap().unwrap();
    until("only the one in use is left", LONG, || leases() == none + 1);
    released(&lease);
}

#[test]
fn a_renewal_without_an_answer_ends_nothing_before_its_time() {
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let lease = lock(&client, "k", ms(6000)).acquire().wait().unwrap();
    proxy.set(Direction::ToClient, Mode::Drop);
    // Past the first renewal, which is answered to nobody.
    std::thread::sleep(ms(3500));
    assert!(lease.is_held() && lease.valid_for() < ms(2500), "it counts from what was answered");
    proxy.cut();
    proxy.set(Direction::ToClient, Mode::Pass);
    until("it is renewed", ms(2500), || lease.valid_for() > ms(4000));
    released(&lease);
}
