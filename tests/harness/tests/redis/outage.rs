//! Servers that stop answering, die, and come back with or without their data.

use std::time::{Duration, Instant};

use dlock::{Kind, ReleaseOutcome};
use dlock_harness::backends::redis::{Redis, RedisOptions};

use crate::common::{
    LATE, LONG, SLACK, client, client_with, fence_at, lock, ms, owner, queued, released, server, until, until_clean,
    until_queued,
};

#[test]
fn every_call_returns_in_time_while_the_server_is_stopped() {
    let (ttl, timeout) = (ms(1000), ms(800));
    let server = server();
    let client = client_with(server.addr(), timeout);
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
        assert!(took < limit + LATE + SLACK, "{name} took {took:?}");
        assert!(matches!(kind, Some(Kind::Backend | Kind::Timeout)), "{name}: {kind:?}");
    };
    std::thread::scope(|scope| {
        let (client, server, held, renewed) = (&client, &server, &held, &renewed);
        let free = |key: &str| lock(client, key, ttl);
        scope.spawn(move || {
            check("acquire for 300 ms", ms(300), &|| free("a").wait(ms(300)).acquire().wait().err().map(|e| e.kind()));
        });
        scope.spawn(move || check("try", timeout, &|| free("b").try_acquire().wait().err().map(|e| e.kind())));
        scope.spawn(move || check("renew", timeout, &|| renewed.renew(None).wait().err().map(|e| e.kind())));
        scope.spawn(move || check("holders", timeout, &|| client.contenders("k").wait().err().map(|e| e.kind())));
        scope.spawn(move || check("ping", timeout, &|| client.ping().wait().err().map(|e| e.kind())));
        scope.spawn(move || check("break", timeout, &|| client.break_lock("k").wait().err().map(|e| e.kind())));
        scope.spawn(move || {
            let begun = Instant::now();
            // It goes on trying for five seconds; the server is back before.
            assert_eq!(held.release().wait().unwrap(), ReleaseOutcome::Released);
            assert!(begun.elapsed() < ms(5000) + LATE + SLACK);
        });
        scope.spawn(move || {
            until("it was stopped for three ttls", LONG, || stopped.elapsed() >= ttl * 3);
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
        assert_eq!((owner(&server, key), fence_at(&server, key)), (Some(lease.token()), lease.fence()));
        released(&lease);
    }
    until_clean(&server, ms(3000));
}

#[test]
fn an_acquire_without_a_deadline_fails_with_an_outage() {
    let timeout = ms(500);
    let server = server();
    let client = client_with(server.addr(), timeout);
    server.pause();
    let begun = Instant::now();
    let error = client.lock("k").ttl(ms(4000)).acquire().wait().unwrap_err();
    println!("an acquire without a deadline at a stopped server: {:?}, {error}", begun.elapsed());
    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
    assert!(begun.elapsed() < timeout * 2 + LATE + SLACK, "{:?}", begun.elapsed());
    server.resume();
    until_clean(&server, LONG);
}

#[test]
fn all_who_wait_in_a_process_are_told_of_a_dead_server_at_once() {
    let timeout = ms(1500);
    let mut server = server();
    let (a, b) = (client(server.addr()), client_with(server.addr(), timeout));
    let keys = ["same", "same", "same", "same", "same", "one", "two", "three"];
    let leases: Vec<_> = keys[4..].iter().map(|key| lock(&a, key, LONG).acquire().wait().unwrap()).collect();
    let waiting: Vec<_> = keys.iter().map(|key| b.lock(key).acquire()).collect();
    let (tell, told) = std::sync::mpsc::channel();
    for (op, key) in waiting.into_iter().zip(keys) {
        let tell = tell.clone();
        let _ = op.on_done(move |result| drop(tell.send((key, result.map(drop), Instant::now()))));
    }
    keys[4..].iter().for_each(|key| until_queued(&server, key, 1));
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

#[test]
fn a_release_that_is_not_confirmed_says_so_in_time() {
    let ttl = ms(1000);
    let server = server();
    let client = client_with(server.addr(), ms(500));
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    server.pause();
    let begun = Instant::now();
    let error = lease.release().wait().unwrap_err();
    println!("release of a stopped server: {:?}, {error}", begun.elapsed());
    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
    assert!(begun.elapsed() < ms(5000) + LATE + SLACK);
    assert!(!lease.is_held());
    server.resume();
    until_clean(&server, ttl + SLACK);
}

#[test]
fn a_server_that_lost_its_data_is_noticed_and_fences_go_on() {
    let ttl = ms(900);
    let mut server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let first = lock(&a, "k", ttl).acquire().wait().unwrap();
    let waiting = lock(&b, "k", ttl).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 1);
    server.restart().unwrap();
    assert!(first.lost_within(Some(ttl + SLACK)).wait().unwrap(), "told at the next renewal");
    let second = waiter.join().unwrap();
    assert!(second.fence() > first.fence(), "{:?} after {:?}", second.fence(), first.fence());
    assert_eq!(first.release().wait().unwrap(), ReleaseOutcome::Lost);
    assert_eq!(owner(&server, "k"), Some(second.token()));
    released(&second);
}

#[test]
fn a_server_that_kept_its_data_keeps_the_locks() {
    let ttl = ms(1500);
    let mut server = Redis::start(&RedisOptions::new().appendonly("always")).unwrap();
    let (a, b, c) = (client(server.addr()), client(server.addr()), client(server.addr()));
    let first = lock(&a, "k", ttl).acquire().wait().unwrap();
    let mut waiters = Vec::new();
    for (client, name) in [(&b, "b"), (&c, "c")] {
        let waiting = lock(client, "k", ttl).acquire();
        waiters.push((name, std::thread::spawn(move || waiting.wait().unwrap())));
        until_queued(&server, "k", waiters.len() as u64);
    }
    let before = first.valid_until();
    server.restart().unwrap();
    until("it is renewed at the new server", ttl, || first.valid_until() > before);
    first.check().unwrap();
    until("both wait again", LONG, || queued(&server, "k") == 2);
    released(&first);
    let mut last = first.fence();
    for (name, waiter) in waiters {
        let lease = waiter.join().unwrap();
        assert!(lease.fence() > last, "{name} comes in its turn");
        last = lease.fence();
        released(&lease);
    }
    until_clean(&server, ms(1000));
}
