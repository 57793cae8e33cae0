//! Replies and requests that are lost, two hundred times each: the outcome is right, and nothing is left behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock::{Kind, Lock, ReleaseOutcome};
use dlock_harness::backends::redis::Redis;
use dlock_harness::proxy::{Action, Direction, Proxy};

use crate::common::{client, fence_at, ms, owner, proxy, released, server, until_clean};
use crate::wire_patterns::{GIVE, RENEW, TAKE};

const WORKERS: usize = 20;
const ROUNDS: usize = 10;

/// How long a request may be without an answer before it is asked on another connection: a quarter of this.
const TTL: Duration = Duration::from_millis(800);

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
fn next(proxy: &Proxy, pattern: &str, action: Action) -> dlock_harness::proxy::Rule {
    proxy.rule(Direction::ToServer, pattern, 1..=1, action)
}

/// An acquire meets it: granted all the same, or refused with nothing left.
fn acquire_meets(action: Action) {
    let server = server();
    let (granted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    play(&server, |proxy, lock| {
        let rule = next(proxy, TAKE, action);
        match lock.acquire().wait() {
            Ok(lease) => {
                // On a machine this busy it may be over by now; then there is nothing to compare.
                let (owner, fence) = (owner(&server, lock.key()), fence_at(&server, lock.key()));
                if lease.is_held() {
                    assert_eq!((owner, fence), (Some(lease.token()), lease.fence()));
                    granted.fetch_add(1, Ordering::Relaxed);
                }
                let _ = lease.release().wait().unwrap();
            }
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Timeout | Kind::Backend), "{error:?}");
                let refused = refused.fetch_add(1, Ordering::Relaxed);
                assert!(refused < 50, "the lost request is to be asked again, and answered");
            }
        }
        assert_eq!(rule.fired(), 1, "the fault was not injected");
    });
    println!("{action:?} on 200 acquires: {granted:?} granted, {refused:?} refused");
    until_clean(&server, ms(6000));
}

#[test]
fn an_acquire_whose_reply_is_cut_off_is_granted() {
    acquire_meets(Action::CutAfterForward);
}

#[test]
fn an_acquire_whose_reply_never_comes_is_granted() {
    acquire_meets(Action::DropReplyAfterForward);
}

#[test]
fn an_acquire_cut_before_the_server_is_asked_again() {
    acquire_meets(Action::CutBefore);
}

/// A release meets it: it was released, and is never called lost.
fn release_meets(action: Action) {
    let server = server();
    play(&server, |proxy, lock| {
        let lease = lock.clone().ttl(TTL * 4).acquire().wait().unwrap();
        let rule = next(proxy, GIVE, action);
        assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released);
        assert_eq!(rule.fired(), 1, "the fault was not injected");
        assert_eq!(owner(&server, lock.key()), None);
        assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released, "and it stays so");
    });
    until_clean(&server, ms(1000));
}

#[test]
fn a_release_whose_reply_is_cut_off_is_released() {
    release_meets(Action::CutAfterForward);
}

#[test]
fn a_release_whose_reply_never_comes_is_released() {
    release_meets(Action::DropReplyAfterForward);
}

#[test]
fn a_release_cut_before_the_server_is_repeated() {
    release_meets(Action::CutBefore);
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
