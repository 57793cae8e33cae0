//! Servers that stop answering, die, and come back with or without their data.

use std::time::{Duration, Instant};

use dlock::{Kind, ReleaseOutcome};
use dlock_harness::backends::Setup;

use crate::common::{LATE, LONG, On, SLACK, acquired, begin, lock, ms, released, until, until_clean, until_contenders};

scenarios! {
    every_call_returns_in_time_while_the_server_is_stopped;
    an_acquire_without_a_deadline_fails_with_an_outage;
    all_who_wait_in_a_process_are_told_of_a_dead_server_at_once;
    a_release_that_is_not_confirmed_says_so_in_time;
    a_server_that_lost_its_data_is_noticed_and_fences_go_on needs DataLoss;
    a_server_that_kept_its_data_keeps_the_locks needs Reconnect;
}

/// Returns a time that is longer than the ttl of a lock, and shorter than a release goes on trying.
fn stopped_for(ttl: Duration) -> Duration {
    ttl.max(ms(2500)) + ms(500)
}

fn every_call_returns_in_time_while_the_server_is_stopped(on: On) {
    let (ttl, timeout) = (on.ttl(ms(1000)), ms(800));
    let server = on.server();
    let client = on.client_with(server.addr(), timeout);
    let lost = lock(&client, "lost", ttl).acquire().wait().unwrap();
    let renewed = lock(&client, "renewed", LONG).acquire().wait().unwrap();
    let held = lock(&client, "held", LONG).acquire().wait().unwrap();
    let dropped = lock(&client, "dropped", ttl).acquire().wait().unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(None));
    let tell = told.clone();
    lost.on_lost_here(move || *tell.lock().unwrap() = Some(dlock::clock::Instant::now()));
    server.pause();
    let stopped = Instant::now();
    drop(dropped);
    let check = |name: &str, limit: Duration, call: &dyn Fn() -> Option<Kind>| {
        let begun = Instant::now();
        let kind = call();
        let took = begun.elapsed();
        println!("{name}: {took:?}, {kind:?}");
        assert!(took < limit, "{name} took {took:?}");
        assert!(matches!(kind, Some(Kind::Backend | Kind::Timeout)), "{name}: {kind:?}");
    };
    let timeout = timeout + LATE + SLACK;
    std::thread::scope(|scope| {
        let (client, server, held, renewed) = (&client, &server, &held, &renewed);
        let free = |key: &str| lock(client, key, ttl);
        scope.spawn(move || {
            check("acquire for 300 ms", ms(800), &|| free("a").wait(ms(300)).acquire().wait().err().map(|e| e.kind()));
        });
        scope.spawn(move || check("try", timeout, &|| free("b").try_acquire().wait().err().map(|e| e.kind())));
        scope.spawn(move || check("renew", timeout, &|| renewed.renew(None).wait().err().map(|e| e.kind())));
        scope.spawn(move || check("holders", timeout, &|| client.contenders("k").wait().err().map(|e| e.kind())));
        scope.spawn(move || check("ping", timeout, &|| client.ping().wait().err().map(|e| e.kind())));
        if on.backend.outside().contains(&"breaks") {
            scope.spawn(move || check("break", timeout, &|| client.break_lock("k").wait().err().map(|e| e.kind())));
        }
        scope.spawn(move || {
            let begun = Instant::now();
            // It goes on trying for five seconds; the server is back before.
            assert_eq!(held.release().wait().unwrap(), ReleaseOutcome::Released);
            assert!(begun.elapsed() < ms(5000) + LATE + SLACK);
        });
        scope.spawn(move || {
            until("it was stopped for longer than a ttl", LONG, || stopped.elapsed() >= stopped_for(ttl));
            server.resume();
        });
    });
    let (told, end) = (told.lock().unwrap().expect("the loss is told"), lost.valid_until());
    println!("the loss was told {:?} before the end, {:?} after it", end - told, told - end);
    assert!(told < end.plus(SLACK));
    assert_eq!(lost.release().wait().unwrap(), ReleaseOutcome::Lost);
    renewed.renew(None).wait().unwrap();
    released(&renewed);
    for key in ["a", "b", "c", "lost", "held", "dropped", "renewed"] {
        let lease = lock(&client, key, ttl).acquire().wait().unwrap();
        assert!(server.is_held_by(key, &lease), "{key}");
        released(&lease);
    }
    until_clean(&*server, ms(3000));
}

fn an_acquire_without_a_deadline_fails_with_an_outage(on: On) {
    let timeout = ms(500);
    let server = on.server();
    let client = on.client_with(server.addr(), timeout);
    server.pause();
    let begun = Instant::now();
    let error = client.lock("k").ttl(ms(4000)).acquire().wait().unwrap_err();
    println!("an acquire without a deadline at a stopped server: {:?}, {error}", begun.elapsed());
    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
    assert!(begun.elapsed() < timeout * 2 + LATE + SLACK, "{:?}", begun.elapsed());
    server.resume();
    until_clean(&*server, LONG);
}

fn all_who_wait_in_a_process_are_told_of_a_dead_server_at_once(on: On) {
    let timeout = ms(1500);
    let mut server = on.server();
    let (a, b) = (on.client(server.addr()), on.client_with(server.addr(), timeout));
    let keys = ["same", "same", "same", "same", "same", "one", "two", "three"];
    let leases: Vec<_> = keys[4..].iter().map(|key| acquired(&a, key)).collect();
    let waiting: Vec<_> = keys.iter().map(|key| b.lock(key).acquire()).collect();
    let (tell, told) = std::sync::mpsc::channel();
    for (op, key) in waiting.into_iter().zip(keys) {
        let tell = tell.clone();
        let _ = op.on_done(move |result| drop(tell.send((key, result.map(drop), Instant::now()))));
    }
    keys[4..].iter().for_each(|key| until_contenders(&*server, key, 2));
    server.kill();
    let killed = Instant::now();
    for _ in keys {
        let (key, result, at) = told.recv_timeout(LONG).expect("all are told");
        let error = result.unwrap_err();
        println!("a waiter for {key}: {:?}, {error}", at - killed);
        assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
        assert!(at - killed < timeout + LATE + SLACK, "a waiter for {key} was told after {:?}", at - killed);
    }
    drop(leases);
}

fn a_release_that_is_not_confirmed_says_so_in_time(on: On) {
    let ttl = on.ttl(ms(1000));
    let server = on.server();
    let client = on.client_with(server.addr(), ms(500));
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    server.pause();
    let begun = Instant::now();
    let error = lease.release().wait().unwrap_err();
    println!("release of a stopped server: {:?}, {error}", begun.elapsed());
    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
    assert!(begun.elapsed() < ms(5000) + LATE + SLACK);
    assert!(!lease.is_held());
    server.resume();
    until_clean(&*server, on.end(ttl) + SLACK);
}

fn a_server_that_lost_its_data_is_noticed_and_fences_go_on(on: On) {
    let ttl = on.ttl(ms(900));
    let mut server = on.server();
    let (a, b) = (on.client(server.addr()), on.client(server.addr()));
    let first = lock(&a, "k", ttl).acquire().wait().unwrap();
    let waiter = begin(&lock(&b, "k", ttl));
    until_contenders(&*server, "k", 2);
    server.restart().unwrap();
    assert!(first.lost_within(Some(ttl + SLACK)).wait().unwrap(), "told at the next renewal");
    let second = waiter.join().unwrap().unwrap();
    assert!(second.fence() > first.fence(), "{:?} after {:?}", second.fence(), first.fence());
    assert_eq!(first.release().wait().unwrap(), ReleaseOutcome::Lost);
    assert!(server.is_held_by("k", &second));
    released(&second);
}

fn a_server_that_kept_its_data_keeps_the_locks(on: On) {
    // Long enough for the server to be back in what is left of it.
    let ttl = ms(1500).max(on.backend.min_ttl() * 3);
    let mut server = on.server_with(Setup { durable: true, ..Setup::default() });
    let (a, b, c) = (on.client(server.addr()), on.client(server.addr()), on.client(server.addr()));
    let first = lock(&a, "k", ttl).acquire().wait().unwrap();
    let mut waiters = Vec::new();
    for (client, name) in [(&b, "b"), (&c, "c")] {
        waiters.push((name, begin(&lock(client, "k", ttl))));
        until_contenders(&*server, "k", 1 + waiters.len());
    }
    let before = first.valid_until();
    server.restart().unwrap();
    assert!(first.is_held());
    until("it is renewed at the new server", ttl, || first.valid_until() > before);
    first.check().unwrap();
    first.renew(None).wait().unwrap();
    until_contenders(&*server, "k", 3);
    released(&first);
    let mut last = first.fence();
    for (name, waiter) in waiters {
        let lease = waiter.join().unwrap().unwrap();
        assert!(lease.fence() > last, "{name} comes in its turn");
        last = lease.fence();
        released(&lease);
    }
    until_clean(&*server, ms(1000));
}
