//! Replies and requests that are lost, again and again: the outcome is right, and nothing is left behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dlock::{Kind, Lock, ReleaseOutcome};
use dlock_harness::backends::{Request, TestServer};
use dlock_harness::proxy::{Action, Direction, Proxy};

use crate::common::{LONG, On, ms, proxy, until, until_clean};

scenarios! {
    an_acquire_whose_reply_is_cut_off_is_granted;
    an_acquire_whose_reply_never_comes_is_granted;
    an_acquire_cut_before_the_server_is_asked_again;
    a_release_whose_reply_is_cut_off_is_released needs Reconnect;
    a_release_whose_reply_never_comes_is_released;
    a_release_cut_before_the_server_is_repeated needs Reconnect;
}

/// How many workers play a scenario at a time, and how often each.
const MANY: (usize, usize) = (20, 10);
/// The same where the scenario has to look for what a proxy doesn't know, which is work as well.
const FEW: (usize, usize) = (5, 4);

/// How long a request may be without an answer before it is asked on another connection: a quarter of this.
const TTL: Duration = Duration::from_millis(800);

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// It is done, and its connection is cut before the reply comes.
    ReplyCut,
    /// It is done, and nothing comes any more.
    Silence,
    /// It never arrives, and its connection is cut.
    Before,
}

/// Plays it so often, on clients, connections and keys of their own.
fn play(on: On, server: &dyn TestServer, round: impl Fn(&Proxy, &Lock) + Sync) {
    // So many workers are a load of their own: one scenario of this file at a time.
    static PLAYING: Mutex<()> = Mutex::new(());
    let _alone = PLAYING.lock().unwrap_or_else(PoisonError::into_inner);
    let (workers, rounds) = if on.remote.is_followed_by_proxies() { MANY } else { FEW };
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let round = &round;
            scope.spawn(move || {
                let proxy = proxy(server);
                let client = on.client(proxy.addr());
                for n in 0..rounds {
                    let ttl = on.ttl(TTL);
                    let lock = client.lock(&format!("k{worker}-{n}")).ttl(ttl).wait(ttl * 7 / 8).auto_renew(false);
                    round(&proxy, &lock);
                    proxy.clear_rules();
                }
            });
        }
    });
}

/// Makes this call, whose next request meets the loss. `done`: the request has had its effect at the server.
fn meeting<T: Send>(
    on: On,
    proxy: &Proxy,
    pattern: &str,
    loss: Loss,
    done: impl Fn() -> bool,
    call: impl FnOnce() -> T + Send,
) -> T {
    let look = matches!(loss, Loss::ReplyCut) && !on.remote.is_followed_by_proxies();
    let action = match loss {
        Loss::ReplyCut if !look => Action::CutAfterForward,
        Loss::ReplyCut | Loss::Silence => Action::DropReplyAfterForward,
        Loss::Before => Action::CutBefore,
    };
    let rule = proxy.rule(Direction::ToServer, pattern, 1..=1, action);
    let result = std::thread::scope(|scope| {
        let call = scope.spawn(call);
        if look {
            until("the request is done", LONG, || {
                std::thread::sleep(ms(10));
                call.is_finished() || done()
            });
            proxy.cut();
        }
        call.join().unwrap()
    });
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    result
}

/// An acquire meets it: granted all the same, or refused with nothing left.
fn acquire_meets(on: On, loss: Loss) {
    let server = on.server();
    let (granted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    play(on, &*server, |proxy, lock| {
        let (key, pattern) = (lock.key(), on.pattern(Request::Acquire, lock.key()));
        match meeting(on, proxy, &pattern, loss, || server.contenders(key) > 0, || lock.acquire().wait()) {
            Ok(lease) => {
                // On a machine this busy it may be over by now; then there is nothing to compare.
                let is_held = server.is_held_by(key, &lease);
                if lease.is_held() {
                    assert!(is_held, "{key}");
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
    });
    println!("{loss:?} of acquires: {granted:?} granted, {refused:?} refused");
    until_clean(&*server, ms(6000));
}

fn an_acquire_whose_reply_is_cut_off_is_granted(on: On) {
    acquire_meets(on, Loss::ReplyCut);
}

fn an_acquire_whose_reply_never_comes_is_granted(on: On) {
    acquire_meets(on, Loss::Silence);
}

fn an_acquire_cut_before_the_server_is_asked_again(on: On) {
    acquire_meets(on, Loss::Before);
}

/// A release meets it: it was released, and is never called lost.
fn release_meets(on: On, loss: Loss) {
    let server = on.server();
    play(on, &*server, |proxy, lock| {
        let lease = lock.clone().ttl(on.ttl(TTL) * 4).acquire().wait().unwrap();
        let (key, pattern) = (lock.key(), on.pattern(Request::Release, lock.key()));
        let outcome = meeting(on, proxy, &pattern, loss, || server.contenders(key) == 0, || lease.release().wait());
        assert_eq!(outcome.unwrap(), ReleaseOutcome::Released);
        assert_eq!(server.owner(key), None);
        assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released, "and it stays so");
    });
    until_clean(&*server, ms(1000));
}

fn a_release_whose_reply_is_cut_off_is_released(on: On) {
    release_meets(on, Loss::ReplyCut);
}

fn a_release_whose_reply_never_comes_is_released(on: On) {
    release_meets(on, Loss::Silence);
}

fn a_release_cut_before_the_server_is_repeated(on: On) {
    release_meets(on, Loss::Before);
}
