//! Shared locks and permits: the rule of admission, and `memory`, its executable specification.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dlock::backend::memory::{Table, Taken};
use dlock::clock::{self, Instant};
use dlock::contract::{Admission, admit};
use dlock::{Claim, Client, Kind, Lease, Lock, Mode, testing};
use proptest::prelude::*;

const SHARED: Mode = Mode::Shared;

const fn permits(count: u32, limit: u32) -> Mode {
    Mode::Permits { count, limit }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Plays this in simulated time with two clients of one table: they share no gate.
fn played<F: Future<Output = ()>>(play: impl FnOnce(Client, Client) -> F) {
    played_with(None, play);
}

fn played_with<F: Future<Output = ()>>(mutant: Option<&'static str>, play: impl FnOnce(Client, Client) -> F) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    testing::simulate(1, mutant, async {
        let name = NEXT.fetch_add(1, Ordering::Relaxed);
        let one = Client::connect(&format!("memory://modes-{name}")).unwrap();
        let two = Client::connect(&format!("memory://modes-{name}?connect_timeout=7s")).unwrap();
        play(one, two).await;
    });
}

async fn held(lock: &Lock) -> Lease {
    lock.acquire().await.unwrap()
}

async fn is_busy(lock: &Lock) -> bool {
    lock.try_acquire().await.unwrap().is_none()
}

/// An acquire under way, which has its place in the queue.
async fn queued(lock: &Lock) -> tokio::task::JoinHandle<dlock::Result<Lease>> {
    let lock = lock.clone();
    let waiting = tokio::spawn(async move { lock.acquire().await });
    clock::sleep(ms(1)).await;
    assert!(!waiting.is_finished(), "it waits");
    waiting
}

async fn granted(waiting: tokio::task::JoinHandle<dlock::Result<Lease>>) -> Lease {
    tokio::time::timeout(ms(200), waiting).await.expect("it is granted").unwrap().unwrap()
}

#[test]
fn readers_hold_together_and_writers_alone() {
    played(|one, two| async move {
        for (here, there) in [(&one, &one), (&one, &two)] {
            let (reader, writer) = (here.lock("k").mode(SHARED), there.lock("k"));
            let (first, second) = (held(&reader).await, held(&there.lock("k").mode(SHARED)).await);
            assert!(first.fence() < second.fence(), "every grant has a greater fence");
            assert!(is_busy(&writer).await);
            first.release().await.unwrap();
            assert!(is_busy(&writer).await, "the other reader holds");
            second.release().await.unwrap();
            let alone = held(&writer).await;
            assert!(is_busy(&reader).await && is_busy(&here.lock("k").mode(permits(1, 9))).await);
            alone.release().await.unwrap();
        }
    });
}

#[test]
fn a_reader_does_not_overtake_a_writer_that_waits() {
    played(no_overtaking);
}

async fn no_overtaking(one: Client, two: Client) {
    for (here, there) in [(&one, &one), (&one, &two)] {
        let reader = here.lock("k").mode(SHARED);
        let first = held(&reader).await;
        let writer = queued(&there.lock("k")).await;
        assert!(is_busy(&reader).await, "a try overtakes nobody");
        let late = [queued(&here.lock("k").mode(SHARED)).await, queued(&there.lock("k").mode(SHARED)).await];
        first.release().await.unwrap();
        let writes = granted(writer).await;
        assert!(late.iter().all(|reader| !reader.is_finished()), "the writer holds alone");
        writes.release().await.unwrap();
        for reader in late {
            let lease = granted(reader).await;
            assert!(lease.fence() > writes.fence());
            // Both hold at the same time.
            std::mem::forget(tokio::spawn(async move {
                clock::sleep(ms(300)).await;
                drop(lease);
            }));
        }
        clock::sleep(ms(500)).await;
    }
}

#[test]
fn readers_enter_when_the_writer_before_them_gives_up() {
    played(|one, two| async move {
        for (here, there) in [(&one, &one), (&one, &two)] {
            let first = held(&here.lock("k").mode(SHARED)).await;
            let writer = there.lock("k").wait(ms(50));
            let writer = tokio::spawn(async move { writer.acquire().await });
            clock::sleep(ms(1)).await;
            let reader = queued(&here.lock("k").mode(SHARED)).await;
            assert_eq!(writer.await.unwrap().unwrap_err().kind(), Kind::Timeout);
            granted(reader).await.release().await.unwrap();
            first.release().await.unwrap();
        }
    });
}

#[test]
fn permits_are_counted_and_have_slots() {
    played(permits_and_slots);
}

/// Each deliberate defect of the rule is found.
#[test]
fn every_mutant_of_the_modes_is_caught() {
    type Play = fn(Client, Client) -> Pin<Box<dyn Future<Output = ()>>>;
    let caught: [(&str, Play); 3] = [
        ("modes-reader-overtakes", |one, two| Box::pin(no_overtaking(one, two))),
        ("modes-limit-off-by-one", |one, two| Box::pin(permits_and_slots(one, two))),
        ("modes-slot-given-twice", |one, two| Box::pin(permits_and_slots(one, two))),
    ];
    let ours = testing::MUTANTS.iter().map(|(name, _)| *name).filter(|name| name.starts_with("modes-"));
    assert!(ours.eq(caught.iter().map(|(name, _)| *name)), "each has a play");
    for (name, play) in caught {
        let survives = std::panic::catch_unwind(|| played_with(Some(name), play)).is_ok();
        assert!(!survives, "{name} wasn't noticed");
    }
}

async fn permits_and_slots(one: Client, two: Client) {
    for (here, there) in [(&one, &one), (&one, &two)] {
        let pair = held(&here.lock("k").mode(permits(2, 3))).await;
        let single = held(&here.lock("k").mode(permits(1, 3))).await;
        assert_eq!((pair.slots(), pair.slot(), single.slot()), (&[0, 1][..], None, Some(2)));
        assert!(is_busy(&here.lock("k").mode(permits(1, 3))).await, "all are taken");
        assert!(is_busy(&here.lock("k").mode(SHARED)).await && is_busy(&there.lock("k")).await);
        // As a deployment with another limit sees it.
        let wider = held(&there.lock("k").mode(permits(1, 4))).await;
        assert_eq!(wider.slot(), Some(3));
        wider.release().await.unwrap();
        pair.release().await.unwrap();
        let again = held(&here.lock("k").mode(permits(1, 3))).await;
        assert_eq!(again.slot(), Some(0), "the lowest that is free");
        // A claim for three waits, and those for one behind it.
        let three = queued(&there.lock("k").mode(permits(3, 3))).await;
        assert!(is_busy(&here.lock("k").mode(permits(1, 3))).await);
        again.release().await.unwrap();
        single.release().await.unwrap();
        let three = granted(three).await;
        assert_eq!((three.slots(), three.mode()), (&[0, 1, 2][..], permits(3, 3)));
        three.release().await.unwrap();
    }
}

/// A claim that may hold beside all before it isn't kept by one before it that may not.
#[test]
fn another_limit_keeps_only_its_own_claims() {
    played(|one, two| async move {
        for (here, there, last) in [(&one, &one, &one), (&one, &two, &one)] {
            let (four, five) =
                (held(&here.lock("k").mode(permits(4, 10))).await, held(&here.lock("k").mode(permits(5, 10))).await);
            let narrow = queued(&there.lock("k").mode(permits(2, 2))).await;
            let wide = queued(&last.lock("k").mode(permits(1, 10))).await;
            let begun = Instant::now();
            four.release().await.unwrap();
            let wide = granted(wide).await;
            assert!(Instant::now() - begun < ms(50), "woken, and not found out later");
            five.release().await.unwrap();
            wide.release().await.unwrap();
            granted(narrow).await.release().await.unwrap();
        }
    });
}

/// Tries on many threads are not in one another's way.
#[test]
fn readers_that_try_at_the_same_time_all_get_in() {
    let client = Client::connect("memory://readers").unwrap();
    std::thread::scope(|scope| {
        for mode in [SHARED, permits(1, 100)] {
            let key = format!("{mode:?}");
            let _keeps_others_out = client.lock(&key).mode(mode).acquire().wait().unwrap();
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let lock = client.lock(&key).mode(mode);
                    scope.spawn(move || {
                        let tried = (0..20_000).map(|_| lock.try_acquire().wait().unwrap());
                        tried.filter(|lease| lease.as_ref().is_none_or(|lease| lease.release().wait().is_err())).count()
                    })
                })
                .collect();
            let refused: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(refused, 0, "{mode:?}");
        }
    });
}

#[test]
fn all_contenders_are_shown_with_their_modes() {
    played(|one, two| async move {
        let _reader = held(&one.lock("k").mode(SHARED).label("first")).await;
        let _second = held(&two.lock("k").mode(SHARED)).await;
        let _writer = queued(&two.lock("k")).await;
        let all = two.contenders("k").await.unwrap();
        let seen: Vec<_> = all.iter().map(|one| (one.held, one.mode)).collect();
        assert_eq!(seen, [(true, SHARED), (true, SHARED), (false, Mode::Exclusive)]);
        assert_eq!(all[0].label.as_deref(), Some("first"));
        let _permit = held(&one.lock("p").mode(permits(1, 2))).await;
        assert_eq!(one.contenders("p").await.unwrap()[0].slots, [0]);
        // Both readers are told of the break.
        assert!(two.break_lock("k").await.unwrap());
        clock::sleep(ms(10)).await;
        assert!(_reader.check().is_err() && _second.check().is_err());
    });
}

#[test]
fn what_can_not_be_is_refused() {
    let memory = Client::connect("memory://refused").unwrap();
    for mode in [permits(0, 3), permits(1, 0), permits(4, 3)] {
        let error = memory.lock("k").mode(mode).check().unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{mode:?}");
    }
    for url in ["file:///tmp/dlock-modes", "redis://localhost", "etcd://localhost"] {
        let client = Client::connect(url).unwrap();
        for mode in [SHARED, permits(1, 2)] {
            let error = client.lock("k").mode(mode).acquire().wait().unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{url} {mode:?}");
            assert!(error.message().contains("use memory"), "it names the backend that can: {error}");
        }
    }
}

/// One step of a random play of the table.
#[derive(Clone, Debug)]
enum Step {
    Take(u64),
    Give(u64),
    Pass,
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        2 => Just(Mode::Exclusive),
        3 => Just(SHARED),
        4 => (1..4_u32, 0..3_u32).prop_map(|(count, more)| permits(count, count + more)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever happens: no claim overtakes another, what holds together may, permits never exceed the limit of a claim
    /// that was granted, slots are had by one holder, fences rise.
    #[test]
    fn the_table_keeps_the_rule(
        modes in prop::collection::vec(mode(), 8),
        steps in prop::collection::vec(
            prop_oneof![4 => (0..8_u64).prop_map(Step::Take), 3 => (0..8_u64).prop_map(Step::Give), 1 => Just(Step::Pass)],
            1..80,
        ),
    ) {
        let client = Client::connect("memory://rule").unwrap();
        let claims: Vec<_> = modes.iter().zip(0_u64..).map(|(mode, nonce)| {
            let options = client.lock("k").mode(*mode).ttl(Duration::from_secs(3600)).options().clone();
            Claim { options: Arc::new(options), client: 1, nonce, wait: true }
        }).collect();
        let (mut table, mut now, mut fence) = (Table::default(), Instant::from_nanos(1), 0);
        // In the order in which they came; whether they hold.
        let mut queue: Vec<(u64, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Take(nonce) => {
                    let place = queue.iter().position(|(other, _)| *other == nonce);
                    // The holders, and those that wait before it.
                    let before = place.unwrap_or(queue.len());
                    let ahead = queue.iter().enumerate().filter(|(at, (_, held))| *held || *at < before);
                    let ahead = ahead.map(|(_, (other, _))| modes[usize::try_from(*other).unwrap()]);
                    let claim = &claims[usize::try_from(nonce).unwrap()];
                    let expected = place.is_some_and(|place| queue[place].1)
                        || admit(claim.options.mode, ahead) == Admission::Now;
                    let again = place.is_some_and(|place| queue[place].1);
                    match table.take(now, claim, Instant::NEVER, true, None) {
                        Taken::Granted(given) => {
                            prop_assert!(expected, "{nonce} was let in");
                            prop_assert!(again || given > fence, "fences rise");
                            fence = fence.max(given);
                            match place {
                                Some(place) => queue[place].1 = true,
                                None => queue.push((nonce, true)),
                            }
                        }
                        Taken::Busy(_) => {
                            prop_assert!(!expected, "{nonce} was kept out");
                            if place.is_none() {
                                queue.push((nonce, false));
                            }
                        }
                    }
                }
                Step::Give(nonce) => {
                    let held = queue.iter().any(|(other, held)| *other == nonce && *held);
                    prop_assert_eq!(table.give(now, "k", nonce), held);
                    queue.retain(|(other, _)| *other != nonce);
                }
                Step::Pass => now = now.plus(Duration::from_millis(10)),
            }
            let holders: Vec<_> = queue.iter().filter(|(_, held)| *held).map(|(nonce, _)| *nonce).collect();
            let mut slots = BTreeSet::new();
            for nonce in &holders {
                let mode = modes[usize::try_from(*nonce).unwrap()];
                prop_assert!(mode != Mode::Exclusive || holders.len() == 1, "exclusive is alone");
                let own = table.slots("k", *nonce);
                let Mode::Permits { count, limit } = mode else { continue };
                prop_assert_eq!(own.len(), usize::try_from(count).unwrap());
                prop_assert!(own.iter().all(|slot| *slot < limit && slots.insert(*slot)), "{:?}", own);
            }
        }
    }
}
