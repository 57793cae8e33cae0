//! Locks that are handed over: from when they count, to whom they go, and in which order.

use dlock::clock::Instant;
use dlock_harness::proxy::{Action, Direction, Mode};

use crate::common::{LONG, client, lock, ms, owner, proxy, queued, released, server, until, until_queued};
use crate::wire_patterns::HANDED;

/// What the queue's details say of the only contender: its stamp, and until when it counts, in ms of the server's clock.
fn entry(server: &dlock_harness::backends::redis::Redis, key: &str) -> Option<(Instant, u64)> {
    let details: Vec<String> = server.get(&["HVALS", &format!("dlock:d:{{{key}}}")]);
    let mut words = details.iter().find(|detail| detail.starts_with("dlock:"))?.split(' ').skip(2);
    let mut number = || words.next()?.parse().ok();
    Some((Instant::from_nanos(number()?), number()?))
}

#[test]
fn a_grant_that_comes_after_its_time_is_not_entered() {
    let ttl = ms(600);
    let server = server();
    let (a, c, proxy) = (client(server.addr()), client(server.addr()), proxy(&server));
    let b = client(proxy.addr());
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&b, "k", ttl).acquire();
    let mut waiter = Some(std::thread::spawn(move || waiting.wait().unwrap()));
    until_queued(&server, "k", 1);
    proxy.both(Mode::Hold);
    released(&holder);
    // Handed to b, which can't know it; then over.
    let second = lock(&c, "k", LONG).acquire().wait().unwrap();
    proxy.set(Direction::ToClient, Mode::Pass);
    proxy.set(Direction::ToServer, Mode::Pass);
    until("b is back in the queue, or has come in", LONG, || {
        queued(&server, "k") == 1 || waiter.as_ref().is_some_and(|waiter| waiter.is_finished())
    });
    // It reads the message in between and must not believe it.
    until("b asks again", LONG, || {
        entry(&server, "k").is_some_and(|(stamp, _)| Instant::now() - stamp < ms(50))
            || waiter.as_ref().is_some_and(|waiter| waiter.is_finished())
    });
    if waiter.as_ref().is_some_and(|waiter| waiter.is_finished()) {
        let lease = waiter.take().map(|waiter| waiter.join().unwrap());
        panic!("two holders: {lease:?} beside {second:?}");
    }
    assert!(second.is_held() && owner(&server, "k") == Some(second.token()));
    released(&second);
    let last = waiter.take().map(|waiter| waiter.join().unwrap()).unwrap();
    assert!(last.is_held() && last.fence() > second.fence());
    released(&last);
}

#[test]
fn a_lock_handed_over_late_is_renewed_before_it_is_entered() {
    // The refresh comes every 100 ms and a lock of 100 ms is late from 50 ms on: the message comes in between.
    let (ttl, delay) = (ms(100), ms(60));
    let server = server();
    let (a, proxy) = (client(server.addr()), proxy(&server));
    let b = client(proxy.addr());
    let rule = proxy.rule(Direction::ToClient, HANDED, .., Action::DelayReply(delay));
    for round in 0..20 {
        let key = format!("k{round}");
        let holder = lock(&a, &key, LONG).acquire().wait().unwrap();
        let waiting = lock(&b, &key, ttl).acquire();
        let waiter = std::thread::spawn(move || waiting.wait().unwrap());
        until_queued(&server, &key, 1);
        let (stamp, _) = entry(&server, &key).unwrap();
        released(&holder);
        let lease = waiter.join().unwrap();
        // With what was left of it, it would end before that.
        assert!(lease.valid_until() > stamp.plus(ttl), "round {round}: entered with what was left");
        let _ = lease.release().wait().unwrap();
    }
    println!("{} of 20 locks were handed over late", rule.fired());
    assert!(rule.fired() > 0, "the fault was not injected");
}

/// It has waited for longer than it may hold: that takes neither its place nor its hold.
#[test]
fn the_first_in_line_holds_for_its_time() {
    let hold = ms(400);
    let server = server();
    let (a, b, c) = (client(server.addr()), client(server.addr()), client(server.addr()));
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&b, "k", LONG).max_hold(hold).acquire();
    let first = std::thread::spawn(move || {
        let lease = waiting.wait().unwrap();
        (lease.fence(), Instant::now(), lease.lost_within(Some(LONG)).wait().unwrap(), Instant::now(), lease)
    });
    until_queued(&server, "k", 1);
    let waiting = lock(&c, "k", LONG).acquire();
    let second = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 2);
    std::thread::sleep(hold * 2);
    released(&holder);
    let (fence, granted, lost, told, lease) = first.join().unwrap();
    assert!(lost && told - granted >= hold / 2, "held for {:?} of {hold:?}", told - granted);
    drop(lease);
    let second = second.join().unwrap();
    assert!(second.fence() > fence, "the second came in before the first");
    released(&second);
}

#[test]
fn a_contender_that_was_not_heard_of_is_passed_over() {
    let server = server();
    let (a, c, proxy) = (client(server.addr()), client(server.addr()), proxy(&server));
    let b = client(proxy.addr());
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let frozen = lock(&b, "k", ms(300)).acquire();
    let canceller = frozen.canceller();
    let frozen = std::thread::spawn(move || frozen.wait());
    until_queued(&server, "k", 1);
    proxy.both(Mode::Drop);
    until("its entry is too old", LONG, || {
        let (seconds, micros): (u64, u64) = server.get(&["TIME"]);
        entry(&server, "k").is_some_and(|(_, dead)| seconds * 1000 + micros / 1000 > dead)
    });
    let next = lock(&c, "k", LONG).acquire();
    let next = std::thread::spawn(move || next.wait().unwrap());
    until_queued(&server, "k", 2);
    released(&holder);
    let after = owner(&server, "k");
    let next = next.join().unwrap();
    assert_eq!(after, Some(next.token()), "the lock went to one that may be dead");
    canceller.cancel();
    assert!(frozen.join().unwrap().is_err());
    released(&next);
}

#[test]
fn nobody_is_overtaken() {
    let server = server();
    let (a, c, proxy) = (client(server.addr()), client(server.addr()), proxy(&server));
    let b = client(proxy.addr());
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&b, "k", ms(30_000)).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 1);
    // It can't ask, only be told.
    proxy.set(Direction::ToServer, Mode::Hold);
    server.command(&["DEL", "k"]);
    assert!(lock(&c, "k", LONG).try_acquire().wait().unwrap().is_none(), "somebody waits for it");
    let first = waiter.join().unwrap();
    assert_eq!(owner(&server, "k"), Some(first.token()));
    proxy.set(Direction::ToServer, Mode::Pass);
    released(&first);
    drop(holder);
}

#[test]
fn a_held_lock_is_busy() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    assert!(lock(&b, "k", LONG).try_acquire().wait().unwrap().is_none());
    let begun = std::time::Instant::now();
    let error = lock(&b, "k", LONG).wait(ms(200)).acquire().wait().unwrap_err();
    assert_eq!(error.kind(), dlock::Kind::Timeout);
    assert!(begun.elapsed() >= ms(200));
    assert_eq!((queued(&server, "k"), owner(&server, "k")), (0, Some(holder.token())));
    released(&holder);
}

#[test]
fn they_come_in_the_order_in_which_they_asked() {
    const CLIENTS: usize = 6;
    let server = server();
    let holder = lock(&client(server.addr()), "k", LONG).acquire().wait().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (client, tell) = (client(server.addr()), tell.clone());
            let waiting = lock(&client, "k", LONG).acquire();
            let thread = std::thread::spawn(move || {
                let lease = waiting.wait().unwrap();
                tell.send((n, lease.fence())).unwrap();
                released(&lease);
            });
            until_queued(&server, "k", n as u64 + 1);
            thread
        })
        .collect();
    drop(tell);
    let first = (usize::MAX, holder.fence());
    released(&holder);
    let order: Vec<_> = std::iter::once(first).chain(told).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(order.iter().skip(1).map(|(n, _)| *n).collect::<Vec<_>>(), (0..CLIENTS).collect::<Vec<_>>());
    assert!(order.is_sorted_by(|(_, one), (_, next)| one < next), "{order:?}");
}
