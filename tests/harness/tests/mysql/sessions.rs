//! Sessions: how many there are, what ends them, and what does not.

use std::time::{Duration, Instant};

use dlock::{Kind, ReleaseOutcome};
use dlock_harness::backends::mysql::MySql;
use dlock_harness::backends::{Setup, TestServer};
use dlock_harness::proxy::{Action, Direction, Proxy};
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

/// A lock without renewal has a session of its own. The server ends it after the ttl, although it is asked each second.
#[test]
fn a_lock_that_is_not_renewed_is_lost_with_its_session_and_ends_after_its_ttl() {
    let server = server();
    let (a, b) = (client(&server), client(&server));
    let first = lock(&a, "k", LONG).auto_renew(false).acquire().wait().unwrap();
    server.kill_sessions(server.holder("k"));
    let begun = Instant::now();
    assert!(first.lost_within(Some(LONG)).wait().unwrap());
    assert!(begun.elapsed() < ms(1000) + SLACK, "{:?}", begun.elapsed());

    let begun = Instant::now();
    let second = lock(&a, "k", ms(4000)).auto_renew(false).acquire().wait().unwrap();
    let third = lock(&b, "k", LONG).wait(LONG * 2).acquire().wait().unwrap();
    let took = begun.elapsed();
    println!("a lock of 4 s that isn't renewed was free after {took:?}");
    assert!(took >= ms(3950) && took < ms(4300) + SLACK, "{took:?}");
    assert!(!second.is_held());
    released(&third);
    // Renewed by hand, it has its whole ttl again.
    let by_hand = lock(&a, "k", ms(3000)).auto_renew(false).acquire().wait().unwrap();
    std::thread::sleep(ms(2200));
    by_hand.renew(None).wait().unwrap();
    std::thread::sleep(ms(2200));
    by_hand.check().unwrap();
    assert!(lock(&b, "k", LONG).try_acquire().wait().unwrap().is_none());
    released(&by_hand);
}

#[test]
fn an_address_that_leads_to_several_servers_is_refused() {
    let servers = [server(), server()];
    let proxy = Proxy::new(TestServer::addr(&servers[0])).unwrap();
    let url = |n: u32| format!("mysql://{}?connect_timeout=2.{n}", proxy.addr());
    let client = answered(dlock::Client::connect(&url(1)).unwrap());
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    proxy.set_upstream(TestServer::addr(&servers[1]));
    // Another ttl has another session.
    let error = lock(&client, "other", LONG * 2).try_acquire().wait().unwrap_err();
    says(&error, true, &["several servers", "name one server"]);
    lease.check().unwrap();
    released(&lease);
    // Nothing is held at the first any more.
    released(&lock(&client, "other", LONG * 2).acquire().wait().unwrap());
}

#[test]
fn a_wait_that_is_given_up_stops_nothing_at_another_server() {
    let (first, second) = (server(), server());
    let proxy = Proxy::new(TestServer::addr(&first)).unwrap();
    let client = answered(dlock::Client::connect(&format!("mysql://{}?connect_timeout=3s", proxy.addr())).unwrap());
    let others: Vec<_> = (0..40).map(|_| second.session()).collect();
    first.hold("k", LONG).unwrap();
    let call = lock(&client, "k", ms(1000)).wait(LONG).acquire();
    let canceller = call.canceller();
    let waiting = std::thread::spawn(move || call.wait());
    until("it waits", LONG, || first.waiters("k").len() == 1);
    // The first one is gone without a word, and its address leads to the second.
    proxy.both(dlock_harness::proxy::Mode::Drop);
    proxy.set_upstream(TestServer::addr(&second));
    std::thread::sleep(ms(1500));
    canceller.cancel();
    drop(waiting.join().unwrap());
    for other in &others {
        assert_eq!(other.rows("SELECT 1"), ["1"], "a session of another program was ended");
    }
}

#[test]
fn ttls_without_number_are_kept() {
    let server = server();
    let client = client(&server);
    let ttls = (1..=12).chain([40]);
    let take = |n: u64| lock(&client, &format!("k{n}"), ms(n * 1000)).acquire().wait().unwrap();
    let all: Vec<_> = ttls.map(take).collect();
    assert_eq!(all[12].ttl(), ms(40_000), "none is longer");
    std::thread::sleep(ms(1200));
    client.ping().wait().unwrap();
    assert_eq!(client.contenders("k40").wait().unwrap().len(), 1);
    assert_eq!(client.contenders("k1").wait().unwrap().len(), 1, "it is renewed");
    all.iter().for_each(released);
}

#[test]
fn a_free_lock_that_has_no_session_says_why() {
    let server = MySql::with_options(Setup::default(), &["--max-connections=3"]).unwrap();
    let (a, b) = (client(&server), client(&server));
    released(&lock(&b, "k", LONG).acquire().wait().unwrap());
    // All sessions that the server takes.
    let others: Vec<_> = std::iter::from_fn(|| server.try_session().ok()).collect();
    let error = lock(&b, "k", LONG).auto_renew(false).wait(ms(500)).acquire().wait().unwrap_err();
    assert!(error.to_string().contains("max_connections"), "{error}");
    // A lock that is waited for by polls is had soon.
    let held = acquired(&a, "k");
    let waiting = begin(&lock(&b, "k", LONG).wait(LONG));
    std::thread::sleep(ms(500));
    released(&held);
    let begun = Instant::now();
    released(&waiting.join().unwrap().unwrap());
    assert!(begun.elapsed() < ms(500) + SLACK, "{:?}", begun.elapsed());
    drop(others);
}

/// A session whose statement is held up holds up all its locks. Here it has no other.
#[test]
fn a_try_that_is_held_up_is_made_on_another_session_and_locks_nobody_out() {
    let server = server();
    let proxy = Proxy::new(TestServer::addr(&server)).unwrap();
    let (ours, other) = (dlock::Client::connect(&format!("mysql://{}", proxy.addr())).unwrap(), client(&server));
    let pattern = "GET_LOCK('k'";
    let rule = proxy.rule(Direction::ToServer, pattern, 1..=1, Action::HoldRequest);
    let begun = Instant::now();
    let lease = lock(&ours, "k", ms(2000)).acquire().wait().unwrap();
    println!("had on another session after {:?}", begun.elapsed());
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    assert!(begun.elapsed() < ms(1500) + SLACK, "{:?}", begun.elapsed());
    proxy.release_held();
    std::thread::sleep(ms(200));
    lease.check().unwrap();
    released(&lease);
    released(&lock(&other, "k", LONG).wait(ms(1000)).acquire().wait().unwrap());
}
