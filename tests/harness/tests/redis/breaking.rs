//! A break whose answer is lost, or that arrives late, takes one lock and not the next one too.

use dlock_harness::proxy::{Action, Direction};

use crate::common::{LONG, client, lock, ms, owner, proxy, released, server, until, until_queued};
use crate::wire_patterns::{BREAK, READ};

/// A holder and two that wait: a break that meets this gives the lock to the first of them, which keeps it.
fn one_lock_is_taken(action: Action) {
    let server = server();
    let proxy = proxy(&server);
    let admin = client(proxy.addr());
    let [holder, second, third] = [(); 3].map(|()| client(server.addr()));
    let first = lock(&holder, "k", LONG).acquire().wait().unwrap();
    let wait = |client: dlock::Client, ahead| {
        let waiting = std::thread::spawn(move || lock(&client, "k", LONG).acquire().wait().unwrap());
        until_queued(&server, "k", ahead);
        waiting
    };
    let (second, third) = (wait(second, 1), wait(third, 2));
    let rule = proxy.rule(Direction::ToServer, BREAK, 1..=1, action);
    match admin.break_lock("k").wait() {
        Ok(broken) => assert!(broken, "{action:?}: there was a holder"),
        Err(error) => assert!(action == Action::CutAfterForward && error.is_temporary(), "{action:?}: {error}"),
    }
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    let second = second.join().unwrap();
    // The one that was kept arrives now.
    proxy.clear_rules();
    proxy.release_held();
    std::thread::sleep(ms(300));
    assert_eq!(owner(&server, "k"), Some(second.token()), "{action:?}");
    assert!(second.is_held() && !first.is_held() && !third.is_finished(), "{action:?}");
    released(&second);
    released(&third.join().unwrap());
}

#[test]
fn a_break_without_an_answer_takes_one_lock() {
    one_lock_is_taken(Action::DropReplyAfterForward);
}

#[test]
fn a_break_whose_connection_is_cut_takes_one_lock() {
    one_lock_is_taken(Action::CutAfterForward);
}

#[test]
fn a_break_that_arrives_late_takes_no_lock() {
    one_lock_is_taken(Action::HoldRequest);
}

/// The holder gives the lock to the next one while the break is on its way.
#[test]
fn a_break_takes_a_lock_that_has_changed_hands_meanwhile() {
    let server = server();
    let proxy = proxy(&server);
    let admin = client(proxy.addr());
    let [holder, second] = [(); 2].map(|()| client(server.addr()));
    let first = lock(&holder, "k", LONG).acquire().wait().unwrap();
    let next = std::thread::spawn(move || lock(&second, "k", LONG).acquire().wait().unwrap());
    until_queued(&server, "k", 1);
    let rule = proxy.rule(Direction::ToServer, READ, 1..=1, Action::DelayReply(ms(400)));
    let breaking = admin.break_lock("k");
    let broken = std::thread::spawn(move || breaking.wait().unwrap());
    until("the owner is read", LONG, || rule.fired() == 1);
    released(&first);
    let next = next.join().unwrap();
    assert!(broken.join().unwrap(), "there was a holder all the time");
    assert!(next.lost().wait().unwrap());
    assert_eq!(owner(&server, "k"), None);
}

#[test]
fn a_break_takes_the_lock_of_the_same_token_once() {
    let server = server();
    let (one, two) = (client(server.addr()), client(server.addr()));
    for _ in 0..2 {
        let lease = lock(&one, "k", LONG).token("mine").acquire().wait().unwrap();
        assert!(two.break_lock("k").wait().unwrap() && !two.break_lock("k").wait().unwrap());
        assert!(lease.lost().wait().unwrap());
    }
}
