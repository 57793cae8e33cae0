//! One acquisition from grant to end: released once, dropped, lost and told so, renewed by hand, limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::{Client, Kind, Lease, ReleaseOutcome, State, testing};
use tempfile::TempDir;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Does this with every local backend, in virtual time. No two tests share a client: each has a clock of its own.
fn each<F: Future<Output = ()>>(test: impl Fn(Client) -> F) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let dir = TempDir::new().unwrap();
    let memory = format!("memory://lease-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    for url in [memory, format!("file://{}", dir.path().display())] {
        testing::simulate(7, None, test(Client::connect(&url).unwrap()));
    }
}

/// Counts how often a loss is told, and when first.
fn watch(lease: &Lease) -> (Arc<AtomicUsize>, Arc<std::sync::OnceLock<Instant>>) {
    let (count, at) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let (counting, noting): (_, Arc<std::sync::OnceLock<Instant>>) = (count.clone(), Arc::clone(&at));
    lease.on_lost_here(move || {
        counting.fetch_add(1, Ordering::Relaxed);
        noting.get_or_init(Instant::now);
    });
    (count, at)
}

/// One thread finds the lease lost, another one gives it back at that moment.
#[test]
fn a_loss_is_told_though_the_lock_is_given_back_meanwhile() {
    let client = Client::connect("memory://untold").unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let mut lost = 0;
    for _ in 0..3_000 {
        let lease = client.lock("k").max_hold(ms(1)).acquire().wait().unwrap();
        let counting = told.clone();
        lease.on_lost_here(move || _ = counting.fetch_add(1, Ordering::SeqCst));
        std::thread::scope(|scope| {
            scope.spawn(|| while lease.is_held() {});
            while lease.state() == State::Held {
                std::hint::spin_loop();
            }
            lost += usize::from(lease.state() == State::Lost);
            lease.release().wait().unwrap();
        });
    }
    assert!(lost > 2_000 && told.load(Ordering::SeqCst) == lost, "{lost} lost, {told:?} told");
}

#[test]
fn released_once_and_for_all() {
    each(|client| async move {
        let lease = client.lock("released").acquire().await.unwrap();
        let (told, _) = watch(&lease);
        assert_eq!((lease.state(), lease.is_held()), (State::Held, true));
        assert!(lease.check().is_ok());
        assert_eq!(lease.valid_for(), Duration::MAX, "the process is the lease");
        assert_eq!(lease.valid_until(), Instant::NEVER);
        for _ in 0..3 {
            assert_eq!(lease.release().await.unwrap(), ReleaseOutcome::Released);
        }
        assert_eq!((lease.state(), lease.is_held()), (State::Released, false));
        assert_eq!(lease.valid_for(), Duration::ZERO);
        assert_eq!(lease.check().unwrap_err().kind(), Kind::NotHeld);
        assert_eq!(lease.renew(None).await.unwrap_err().kind(), Kind::NotHeld);
        assert!(!lease.lost().await.unwrap());
        let next = client.lock("released").try_acquire().await.unwrap().unwrap();
        assert!(next.fence() > lease.fence());
        // The first one's end doesn't concern the second.
        assert_eq!(lease.release().await.unwrap(), ReleaseOutcome::Released);
        drop(lease);
        assert!(next.is_held());
        assert_eq!(told.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn dropping_releases() {
    each(|client| async move {
        let lease = client.lock("dropped").acquire().await.unwrap();
        let lost = lease.lost();
        assert!(client.lock("dropped").try_acquire().await.unwrap().is_none());
        drop(lease);
        assert!(!lost.await.unwrap());
        assert!(client.lock("dropped").try_acquire().await.unwrap().is_some());
    });
}

#[test]
fn without_renewal_it_ends_at_its_ttl() {
    each(|client| async move {
        let lock = client.lock("expires").ttl(ms(400)).auto_renew(false);
        let lease = lock.acquire().await.unwrap();
        let (told, at) = watch(&lease);
        let end = lease.valid_until();
        assert!(lease.valid_for() > ms(380) && lease.valid_for() <= ms(400));
        assert!(lease.lost().await.unwrap());
        assert!(Instant::now() <= end, "told before it is over");
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(*at.get().unwrap() <= end);
        let error = lease.check().unwrap_err();
        assert_eq!((error.kind(), error.key()), (Kind::Lost, Some("expires")));
        let next = client.lock("expires").acquire().await.unwrap();
        assert!(Instant::now() >= end, "nobody enters before its end");
        assert!(next.fence() > lease.fence());
        assert_eq!(lease.release().await.unwrap(), ReleaseOutcome::Lost);
        drop(lease);
        assert!(next.is_held());
    });
}

#[test]
fn a_hold_has_its_limit() {
    each(|client| async move {
        let lease = client.lock("limited").max_hold(ms(500)).acquire().await.unwrap();
        let begun = Instant::now();
        assert!(lease.lost().await.unwrap());
        let held = Instant::now() - begun;
        assert!(held > ms(400) && held <= ms(500), "{held:?}");
        assert!(lease.check().unwrap_err().message().contains("max_hold"));
        let next = client.lock("limited").acquire().await.unwrap();
        assert!(Instant::now() - begun >= ms(500), "its holder was promised that long");
        assert!(Instant::now() - begun < ms(700), "and the lock is deleted then");
        assert!(next.is_held());
    });
}

/// A hold that is shorter than the warning is long is held all the same, for three quarters at the least.
#[test]
fn a_short_hold_is_held() {
    each(|client| async move {
        for hold in [ms(4), ms(20), ms(40), ms(100)] {
            let lease = client.lock("short").max_hold(hold).acquire().await.unwrap();
            let begun = Instant::now();
            assert!(lease.lost().await.unwrap());
            let held = Instant::now() - begun;
            assert!(held >= hold * 3 / 4 && held <= hold, "{held:?} of {hold:?}");
            drop(lease);
        }
    });
}

#[test]
fn renewed_by_hand() {
    each(|client| async move {
        let lease = client.lock("by hand").ttl(ms(300)).auto_renew(false).acquire().await.unwrap();
        for _ in 0..5 {
            clock::sleep(ms(150)).await;
            lease.renew(None).await.unwrap();
        }
        let end = lease.valid_until();
        lease.renew(Some(ms(1_000))).await.unwrap();
        assert_eq!(lease.ttl(), ms(1_000));
        assert!(lease.valid_until() > end);
        // A shorter ttl takes nothing back of what was promised.
        let end = lease.valid_until();
        lease.renew(Some(ms(200))).await.unwrap();
        assert_eq!(lease.valid_until(), end);
        let error = lease.renew(Some(ms(1))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(lease.is_held());
        assert!(client.lock("by hand").wait(ms(500)).acquire().await.is_err());
        assert!(lease.lost().await.unwrap());
        assert_eq!(lease.renew(None).await.unwrap_err().kind(), Kind::Lost);
    });
}

#[test]
fn a_loss_is_told_once_to_all_who_ask() {
    each(|client| async move {
        let lease = client.lock("told").ttl(ms(200)).auto_renew(false).acquire().await.unwrap();
        let watchers: Vec<_> = (0..5).map(|_| watch(&lease)).collect();
        let waiters: Vec<_> = (0..5).map(|_| lease.lost()).collect();
        for waiter in waiters {
            assert!(waiter.await.unwrap());
        }
        let (late, at) = watch(&lease);
        assert!(at.get().is_some(), "at once when it is lost already");
        clock::sleep(ms(2_000)).await;
        for (told, _) in watchers {
            assert_eq!(told.load(Ordering::Relaxed), 1);
        }
        assert_eq!(late.load(Ordering::Relaxed), 1);
    });
}

/// Time ends a lease without anybody's help: no watchdog has to run for `is_held` to be honest.
#[test]
fn what_is_held_is_computed() {
    testing::simulate(3, None, async {
        let client = Client::connect("memory://computed").unwrap();
        let lease = client.lock("k").ttl(ms(200)).auto_renew(false).acquire().await.unwrap();
        let end = lease.valid_until();
        tokio::time::advance(ms(500)).await;
        assert!(end.passed());
        assert!(!lease.is_held());
        assert_eq!(lease.state(), State::Lost);
    });
}

#[test]
fn an_operator_takes_it_away() {
    testing::simulate(3, None, async {
        let client = Client::connect("memory://broken").unwrap();
        let lease = client.lock("k").acquire().await.unwrap();
        let (told, _) = watch(&lease);
        assert!(client.break_lock("k").await.unwrap());
        assert!(lease.lost().await.unwrap());
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(!client.break_lock("k").await.unwrap(), "nobody holds it");
        assert_eq!(lease.release().await.unwrap(), ReleaseOutcome::Lost);
        assert!(client.lock("k").try_acquire().await.unwrap().is_some());
    });
}

/// A holder that releases right after the break, before any look at the lock, learns that it had lost it.
#[test]
fn a_release_right_after_a_break_reports_the_loss() {
    let dir = TempDir::new().unwrap();
    for url in ["memory://broken-and-released".to_owned(), format!("file://{}", dir.path().display())] {
        let client = Client::connect(&url).unwrap();
        for turn in 0..100 {
            let lease = client.lock("k").acquire().wait().unwrap();
            assert!(client.break_lock("k").wait().unwrap());
            assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Lost, "{url}, turn {turn}");
        }
    }
}
