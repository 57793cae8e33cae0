//! Requests that arrive after their repetition.

use std::time::Instant;

use dlock_harness::backends::Request;
use dlock_harness::proxy::{Action, Direction};

use crate::common::{LONG, On, acquired, begin, lock, ms, proxy, released, until};

scenarios! {
    an_acquire_overtaken_by_its_repetition_locks_nobody_out needs Reconnect;
    a_late_release_deletes_nothing_of_the_next;
}

/// A server that sees a connection end may drop some requests, hence many.
fn keys() -> impl Iterator<Item = String> {
    (0..16).map(|n| format!("k{n}"))
}

fn an_acquire_overtaken_by_its_repetition_locks_nobody_out(on: On) {
    let server = on.server();
    let (proxy, other) = (proxy(&*server), on.client(server.addr()));
    let client = on.client_with(proxy.addr(), ms(4000));
    let beside = lock(&client, "beside", on.ttl(ms(3000))).acquire().wait().unwrap();
    let rule = proxy.rule(Direction::ToServer, on.pattern(Request::Acquire, "k0"), 1..=1, Action::HoldRequest);
    // Asked again on another connection within a second; those that are held may be accepted for four.
    let waiting: Vec<_> = keys().map(|key| begin(&lock(&client, &key, on.ttl(ms(3000))))).collect();
    let leases: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().unwrap().unwrap()).collect();
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    leases.iter().for_each(released);
    let before = server.requests();
    proxy.release_held();
    until("a late request is done", LONG, || server.requests() > before);
    // The session's own requests count too.
    std::thread::sleep(ms(200));
    let begun = Instant::now();
    let next: Vec<_> =
        keys().map(|key| begin(&lock(&other, &key, on.ttl(ms(1000))).wait(on.remote.takes_back_within()))).collect();
    for next in next {
        released(&next.join().unwrap().expect("what a late request took is given back at once"));
    }
    println!("free {:?} after late requests", begun.elapsed());
    assert!(beside.is_held());
    released(&beside);
}

fn a_late_release_deletes_nothing_of_the_next(on: On) {
    let server = on.server();
    let proxy = proxy(&*server);
    let client = on.client(proxy.addr());
    let first: Vec<_> = keys().map(|key| acquired(&client, &key)).collect();
    let rule = proxy.rule(Direction::ToServer, on.pattern(Request::Release, "k0"), 1..=1, Action::HoldRequest);
    std::thread::scope(|scope| first.iter().for_each(|lease| drop(scope.spawn(|| released(lease)))));
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    let next: Vec<_> = keys().map(|key| acquired(&client, &key)).collect();
    let before = server.requests();
    proxy.release_held();
    until("a late request is done", LONG, || server.requests() > before);
    std::thread::sleep(ms(200));
    for (key, lease) in keys().zip(&next) {
        assert!(server.contenders(&key) == 1 && server.is_held_by(&key, lease), "{key} is gone");
    }
    assert!(next.iter().all(dlock::Lease::is_held));
    next.iter().for_each(released);
}
