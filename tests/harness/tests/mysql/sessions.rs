//! Sessions: how many there are, what ends them, and what does not.

use std::time::{Duration, Instant};

use dlock::{Kind, ReleaseOutcome};
use dlock_harness::backends::mysql::MySql;
use dlock_harness::backends::{Setup, TestServer};
use dlock_harness::proxy::Proxy;
use dlock_harness::scenario::answered;

use crate::common::{LONG, SLACK, acquired, begin, client, cold, lock, ms, released, says, server, until};

#[test]
fn a_session_that_is_killed_is_a_loss_of_all_its_locks() {
    let server = server();
    let client = client(&server);
    let all: Vec<_> = (0..20).map(|n| lock(&client, &format!("k{n}"), LONG * 6).acquire().wait().unwrap()).collect();
    let begun = Instant::now();
    server.kill_sessions(server.holder("k7"));
    // A renewal is due after 20 s only.
    for lease in &all {
        assert!(lease.lost_within(Some(LONG)).wait().unwrap());
    }
    println!("20 losses are told {:?} after the end of the session", begun.elapsed());
    assert!(begun.elapsed() < ms(1000) + SLACK, "{:?}", begun.elapsed());
    assert_eq!(all[7].release().wait().unwrap(), ReleaseOutcome::Lost);
    assert_eq!(all[8].renew(None).wait().unwrap_err().kind(), Kind::Lost);
    released(&acquired(&client, "k7"));
}

#[test]
fn fifty_locks_need_few_sessions_and_fifty_waits_leave_none() {
    let server = server();
    let (holder, waiter) = (client(&server), client(&server));
    let keys: Vec<_> = (0..50).map(|n| format!("k{n}")).collect();
    let before = server.clients().len();
    let waiting: Vec<_> = keys.iter().map(|key| begin(&lock(&holder, key, LONG))).collect();
    let held: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().unwrap().unwrap()).collect();
    let sessions = server.clients().len() - before + 1;
    println!("{sessions} sessions hold 50 locks");
    assert!(sessions <= 3, "{sessions} sessions hold 50 locks");

    let calls: Vec<_> = keys.iter().map(|key| lock(&waiter, key, LONG).acquire()).collect();
    let cancellers: Vec<_> = calls.iter().map(|call| call.canceller()).collect();
    let calls: Vec<_> = calls.into_iter().map(|call| std::thread::spawn(move || call.wait())).collect();
    until("all wait", LONG, || keys.iter().map(|key| server.waiters(key).len()).sum::<usize>() == 50);
    cancellers.iter().for_each(dlock::Canceller::cancel);
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
    }
    held.iter().for_each(released);
    assert_eq!(server.held(), [""; 0]);
    // A lock of that ttl: what is one session too many ends.
    released(&lock(&waiter, "k", LONG).acquire().wait().unwrap());
    until("few sessions are left", LONG, || server.clients().len() <= before + 4);
    until("none is left that has nothing to do", LONG * 2, || server.clients().is_empty());
}

#[test]
fn a_clock_of_the_server_that_is_set_ends_nothing() {
    let server = MySql::with_clock().unwrap();
    let (a, b) = (client(&server), client(&server));
    let first = lock(&a, "k", ms(2000)).acquire().wait().unwrap();
    for forwards in [true, false] {
        server.step_clock(Duration::from_secs(3600), forwards);
        std::thread::sleep(ms(2500));
        first.check().unwrap();
        assert!(lock(&b, "k", LONG).try_acquire().wait().unwrap().is_none());
    }
    released(&first);
}

#[test]
fn a_full_server_refuses_new_sessions_and_keeps_what_is_held() {
    let server = MySql::with_options(Setup::default(), &["--max-connections=5"]).unwrap();
    let (a, b) = (client(&server), cold(&server, ""));
    let lease = acquired(&a, "k");
    let proxies: Vec<_> = std::iter::from_fn(|| {
        let other = cold(&server, "");
        other.ping().wait().ok().map(|()| other)
    })
    .take(10)
    .collect();
    let error = b.ping().wait().unwrap_err();
    says(&error, true, &["max_connections", "1040"]);
    lease.renew(None).wait().unwrap();
    // More locks of the same client need no session.
    released(&acquired(&a, "k2"));
    released(&lease);
    drop(proxies);
}

#[test]
fn what_hides_the_session_is_refused() {
    let server = server();
    let url = TestServer::url(&server);
    let wrong = dlock::Client::connect(&url.replace("mysql://", "redis://")).unwrap().ping().wait().unwrap_err();
    println!("{wrong}");
    assert_eq!(wrong.kind(), Kind::Backend);
    let error = dlock::Client::connect("mysql://a,b/").unwrap_err();
    says(&error, false, &["2 addresses", "clients of their own"]);
}

#[test]
fn a_waiter_whose_connection_is_cut_waits_on_another() {
    let server = server();
    let proxy = Proxy::new(TestServer::addr(&server)).unwrap();
    let holder = client(&server);
    let waiter = answered(dlock::Client::connect(&format!("mysql://{}", proxy.addr())).unwrap());
    let held = acquired(&holder, "k");
    let waiting = begin(&lock(&waiter, "k", LONG).wait(LONG * 2));
    until("it waits", LONG, || server.waiters("k").len() == 1);
    assert!(proxy.cut() > 0, "the fault was not injected");
    std::thread::sleep(ms(300));
    until("it waits again", LONG, || server.waiters("k").len() == 1);
    released(&held);
    released(&waiting.join().unwrap().unwrap());
}
