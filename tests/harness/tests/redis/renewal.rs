//! From when a lease counts, and how its holder learns that it is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use dlock::clock::Instant;
use dlock::{Kind, Lock};
use dlock_harness::backends::redis::Redis;
use dlock_harness::proxy::{Action, Direction, Mode, Proxy, Rule};

use crate::common::{LONG, SLACK, client, lock, ms, owner, proxy, released, server, until, until_clean};
use crate::wire_patterns::{GIVE, RENEW, TAKE};

#[test]
fn a_lease_counts_from_when_its_request_was_sent() {
    let (ttl, delay) = (ms(4000), ms(700));
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    // Shorter than the second after which it would be asked again.
    proxy.rule(Direction::ToServer, TAKE, 1..=1, Action::DelayReply(delay));
    let sent = proxy.rule(Direction::ToServer, TAKE, .., Action::Signal);
    let acquired = lock(&client, "k", ttl).auto_renew(false).acquire();
    let acquired = std::thread::spawn(move || acquired.wait().unwrap());
    assert!(sent.wait_fired(1, LONG));
    let seen = Instant::now();
    let lease = acquired.join().unwrap();
    if sent.fired() == 1 {
        assert!(lease.valid_until() < seen.plus(ttl), "{:?} too long", lease.valid_until() - seen.plus(ttl));
    }
    proxy.rule(Direction::ToServer, RENEW, 1..=1, Action::DelayReply(delay));
    let sent = proxy.rule(Direction::ToServer, RENEW, .., Action::Signal);
    let renewal = lease.renew(None);
    let renewal = std::thread::spawn(move || renewal.wait());
    assert!(sent.wait_fired(1, LONG));
    let seen = Instant::now();
    renewal.join().unwrap().unwrap();
    if sent.fired() == 1 {
        assert!(lease.valid_until() < seen.plus(ttl), "{:?} too long", lease.valid_until() - seen.plus(ttl));
    }
    released(&lease);
}

#[test]
fn a_lease_keeps_what_is_kept_beside_its_key() {
    let server = server();
    let client = client(server.addr());
    for lock in [lock(&client, "k", ms(600)), lock(&client, "k", ms(600)).token("mine")] {
        let lease = lock.acquire().wait().unwrap();
        // As after a week, less so long.
        server.command(&["PEXPIRE", "dlock:f:{k}", "5000"]);
        until("it lives on with the lease", ms(4000), || server.get::<i64>(&["PTTL", "dlock:f:{k}"]) > 5000);
        lease.renew(None).wait().unwrap();
        assert_eq!(client.contenders("k").wait().unwrap()[0].fence, lease.fence());
        released(&lease);
    }
    // Another program's is left alone.
    let lease = lock(&client, "other", ms(600)).acquire().wait().unwrap();
    server.command(&["SET", "dlock:f:{other}", "1 somebody 0 ", "PX", "5000"]);
    lease.renew(None).wait().unwrap();
    assert!(server.get::<i64>(&["PTTL", "dlock:f:{other}"]) <= 5000);
    released(&lease);
}

#[test]
fn an_acquire_answered_after_its_time_is_not_entered() {
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let acquired = lock(&client, "k", ms(250)).acquire();
    let sent = proxy.rule(Direction::ToServer, TAKE, .., Action::Signal);
    proxy.set(Direction::ToClient, Mode::Hold);
    let acquired = std::thread::spawn(move || acquired.wait().unwrap());
    assert!(sent.wait_fired(1, LONG));
    until("it was granted", LONG, || crate::common::fence_at(&server, "k").is_some());
    until("it is over", LONG, || owner(&server, "k").is_none());
    proxy.set(Direction::ToClient, Mode::Pass);
    let lease = acquired.join().unwrap();
    let owner = owner(&server, "k");
    // On a machine this busy the second grant may be over, too.
    assert!(owner == Some(lease.token()) || !lease.is_held() && owner.is_none(), "{lease:?}, the server: {owner:?}");
    assert!(lease.valid_until() > Instant::now().minus(SLACK * 2), "what was over is entered");
    assert!(lease.fence() == crate::common::fence_at(&server, "k"), "the first grant was never ours");
    let _ = lease.release().wait().unwrap();
}

/// Replies to renewals this late: never valid longer than the server keeps it, and no loss before it must be told.
fn late_replies(percent: u32, kept: bool) {
    let ttl = ms(1000);
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    let rule = proxy.rule(Direction::ToServer, RENEW, .., Action::DelayReply(ttl * percent / 100));
    let end = Instant::now().plus(ms(2500));
    let mut until = lease.valid_until();
    while !end.passed() && lease.state() == dlock::State::Held {
        until = until.max(lease.valid_until());
        let owner = owner(&server, "k");
        assert!(!lease.is_held() || owner == Some(lease.token()), "held here, and there {owner:?}");
        std::thread::sleep(ms(2));
    }
    let early = until - Instant::now();
    println!("replies late by {percent} % of the ttl: {:?}, {} renewals, {early:?} left", lease.state(), rule.fired());
    assert!(rule.fired() > 0, "the fault was not injected");
    if kept {
        lease.check().unwrap();
    } else {
        // Told at most 50 ms before it ends.
        assert!(lease.state() == dlock::State::Held || early <= ms(60), "told {early:?} too early");
    }
    let _ = lease.release().wait();
}

#[test]
fn late_replies_to_renewals_are_no_loss_while_it_counts() {
    std::thread::scope(|scope| {
        for (percent, kept) in [(30, true), (40, true), (60, false), (90, false), (150, false)] {
            scope.spawn(move || late_replies(percent, kept));
        }
    });
}

#[test]
fn nothing_is_renewed_that_is_being_given_back() {
    // It would be due for a renewal after a third of that.
    let ttl = ms(1500);
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let lease = lock(&client, "k", ttl).acquire().wait().unwrap();
    let given = proxy.rule(Direction::ToServer, GIVE, .., Action::CutBefore);
    let renewed = proxy.rule(Direction::ToServer, RENEW, .., Action::Signal);
    let release = lease.release();
    let release = std::thread::spawn(move || release.wait());
    assert!(given.wait_fired(1, LONG));
    let before = renewed.fired();
    until("it ends by its ttl", ttl + SLACK, || owner(&server, "k").is_none());
    assert_eq!(renewed.fired(), before, "renewed while it was given back");
    proxy.clear_rules();
    let _ = release.join().unwrap();
}

#[test]
fn a_lease_ends_in_time_though_the_watchdog_is_kept() {
    let server = server();
    let client = client(server.addr());
    let first = lock(&client, "first", ms(200)).auto_renew(false).acquire().wait().unwrap();
    let second = lock(&client, "second", ms(500)).auto_renew(false).acquire().wait().unwrap();
    let ((tell, told), (go, gone)) = (channel(), channel::<()>());
    // What a callback is not to do.
    first.on_lost_here(move || {
        tell.send(()).unwrap();
        let _ = gone.recv_timeout(LONG);
    });
    told.recv_timeout(LONG).expect("the loss is told");
    let end = second.valid_until();
    until("it is over", LONG, || end.passed());
    assert!(!second.is_held() && second.valid_for().is_zero(), "believed after its end");
    assert_eq!(second.check().unwrap_err().kind(), Kind::Lost);
    drop(go);
}

#[test]
fn a_loss_is_told_before_the_lease_ends() {
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let lease = lock(&client, "k", ms(700)).acquire().wait().unwrap();
    let told = std::sync::Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    proxy.both(Mode::Drop);
    lease.on_lost_here(move || tell.store(true, Ordering::SeqCst));
    let end = lease.valid_until();
    until("the loss is told", end.left() + SLACK, || told.load(Ordering::SeqCst));
    println!("told {:?} before the end", end.left());
}

const WORKERS: usize = 20;
const ROUNDS: usize = 10;

/// How long a request may be without an answer before it is asked on another connection: a quarter of this.
const TTL: std::time::Duration = std::time::Duration::from_millis(800);

/// Plays it 200 times, on clients, connections and keys of their own.
fn play(server: &Redis, round: impl Fn(&Proxy, &Lock) + Sync) {
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let round = &round;
            scope.spawn(move || {
                let proxy = proxy(server);
                let client = client(proxy.addr());
                for n in 0..ROUNDS {
                    let lock = client.lock(&format!("k{worker}-{n}")).ttl(TTL).wait(ms(700)).auto_renew(false);
                    round(&proxy, &lock);
                    proxy.clear_rules();
                }
            });
        }
    });
}

/// The next request of this form meets this.
fn next(proxy: &Proxy, pattern: &str, action: Action) -> Rule {
    proxy.rule(Direction::ToServer, pattern, 1..=1, action)
}

#[test]
fn a_renewal_without_an_answer_is_no_loss() {
    let server = server();
    play(&server, |proxy, lock| {
        let lease = lock.clone().ttl(TTL * 4).acquire().wait().unwrap();
        for action in [Action::CutAfterForward, Action::CutBefore] {
            let rule = next(proxy, RENEW, action);
            let before = lease.valid_until();
            match lease.renew(None).wait() {
                Ok(()) => assert!(lease.valid_until() > before),
                Err(error) => {
                    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
                    assert_eq!(lease.valid_until(), before, "no answer, no longer validity");
                }
            }
            assert_eq!(rule.fired(), 1, "the fault was not injected");
            lease.check().unwrap();
            lease.renew(None).wait().unwrap();
            assert!(lease.valid_until() > before);
        }
        released(&lease);
    });
    until_clean(&server, ms(1000));
}

#[test]
fn a_renewal_in_silence_is_asked_on_another_connection() {
    let server = server();
    play(&server, |proxy, lock| {
        let lease = lock.clone().ttl(TTL * 2).acquire().wait().unwrap();
        let rule = next(proxy, RENEW, Action::DropReplyAfterForward);
        let before = lease.valid_until();
        lease.renew(None).wait().unwrap();
        assert!(rule.fired() == 1 && lease.valid_until() > before);
        released(&lease);
    });
    until_clean(&server, ms(1000));
}
