//! The end of a client and of what it holds: told before it is given back, all at once, and nobody else's. Each with the
//! deliberate defect that it is there for.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::mutant::MUTANTS;
use dlock::{Client, Kind, ReleaseOutcome, registry, testing};
use fake::{Answer, Call, Fake};

/// How many leases a client has that is closed.
const MANY: usize = 300;
/// How long the service takes to answer a release.
const ANSWER: Duration = Duration::from_millis(10);

/// Plays this as it is, and under the defect, which must show.
fn shows<T: std::fmt::Debug + PartialEq>(defect: &'static str, play: impl AsyncFn() -> T, whole: &T) {
    assert!(MUTANTS.iter().any(|(name, _)| *name == defect), "there is no {defect}");
    assert_eq!(testing::simulate(1, None, play()), *whole);
    assert_ne!(testing::simulate(1, Some(defect), play()), *whole, "{defect} shows");
}

/// A client of a service that takes its time to answer a release.
fn slow() -> (Client, Arc<Fake>) {
    let (client, fake) = Fake::client();
    fake.takes(Call::Release, ANSWER);
    (client, fake)
}

/// How a close of many leases went: how many holders were told before the first was given back, how many were given back,
/// whether several at a time and whether not all at once, and whether it took far less than one after the other.
async fn closed() -> (usize, usize, bool, bool, bool) {
    let (client, fake) = slow();
    let mut leases = Vec::new();
    for i in 0..MANY {
        let lease = client.lock(&format!("k{i}")).acquire().await.unwrap();
        let fake = fake.clone();
        lease.on_lost_here(move || fake.note());
        leases.push(lease);
    }
    let begun = Instant::now();
    client.close(Duration::from_secs(5)).await.unwrap();
    let took = Instant::now() - begun;
    for lease in &leases {
        assert!(!lease.is_held());
        lease.release().await.unwrap();
    }
    let told = fake
        .record()
        .iter()
        .take_while(|asked| asked.call != Call::Release)
        .filter(|asked| asked.call == Call::Note)
        .count();
    let released = fake.asked(Call::Release);
    let most = released.iter().map(|asked| asked.under_way).max().unwrap();
    (told, released.len(), most > 1, most < MANY, took < ANSWER * 30)
}

#[test]
fn all_are_told_and_then_given_back_at_once() {
    let whole = (MANY, MANY, true, true, true);
    shows("client-closed-in-silence", closed, &whole);
    shows("client-releases-one-by-one", closed, &whole);
}

#[test]
fn a_close_that_nobody_waits_for_gives_all_back() {
    testing::simulate(1, None, async {
        let (client, fake) = slow();
        let lease = client.lock("k").acquire().await.unwrap();
        drop(client.close(Duration::from_secs(5)));
        assert_eq!(lease.check().unwrap_err().kind(), Kind::Lost);
        clock::sleep(ANSWER * 2).await;
        assert_eq!(fake.count(Call::Release), 1);
    });
}

/// One that connects, and closes, does nothing to those who lock by the same name.
#[test]
fn a_handle_of_ones_own() {
    let play = async || {
        let client = Client::connect("memory://handles").unwrap();
        registry::register("handles", &client).unwrap();
        let everybodys = registry::shared(Some("handles")).unwrap();
        let lease = everybodys.lock("k").acquire().await.unwrap();
        let (mine, others) = (registry::client(Some("handles")).unwrap(), registry::client(Some("handles")).unwrap());
        let (k2, k3) = (mine.lock("k2").acquire().await.unwrap(), others.lock("k3").acquire().await.unwrap());
        mine.close(Duration::from_secs(1)).await.unwrap();
        let held = [lease.is_held(), k2.is_held(), k3.is_held()];
        (held, everybodys.lock("k4").try_acquire().await.is_ok(), mine.lock("k4").try_acquire().await.is_ok())
    };
    shows("client-default-is-shared", play, &([true, false, true], true, false));
}

#[test]
fn a_break_is_told_whichever_client_breaks_it() {
    let folder = tempfile::tempdir().unwrap();
    let (memory, file) = ("memory://breaks".to_owned(), format!("file://{}", folder.path().display()));
    // One directory by two names, too.
    for (place, same) in [(memory.clone(), memory), (file.clone(), file.clone()), (file.clone(), file + "/")] {
        let play = async || {
            let one = Client::connect(&format!("{place}?prefix=a-")).unwrap();
            let two = Client::connect(&format!("{same}?connect_timeout=4s")).unwrap();
            let lease = one.lock("k").acquire().await.unwrap();
            let other = one.lock("k2").acquire().await.unwrap();
            let called = Arc::new(AtomicUsize::new(0));
            let counter = called.clone();
            lease.on_lost_here(move || _ = counter.fetch_add(1, Ordering::SeqCst));
            let waiting = two.lock("a-k").acquire();
            assert!(two.break_lock("a-k").await.unwrap());
            let next = waiting.await.unwrap();
            assert!(next.fence() > lease.fence());
            // No renewal is due by then.
            for _ in 0..100 {
                clock::sleep(Duration::from_millis(if called.load(Ordering::SeqCst) == 0 { 20 } else { 0 })).await;
            }
            let told = called.load(Ordering::SeqCst);
            assert_eq!(lease.release().await.unwrap(), ReleaseOutcome::Lost);
            (told, next.is_held(), other.is_held())
        };
        if place.starts_with("memory") {
            shows("client-break-told-to-its-own", play, &(1, true, true));
            continue;
        }
        // Fences of files are made of the time, which goes on by itself here.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(play()), (1, true, true), "{place} and {same}");
    }
}

#[test]
fn a_suspicion_that_comes_before_the_lease_is_followed_by_it() {
    let play = async || {
        let (client, fake, context) = Fake::observed();
        fake.takes(Call::Attempt, Duration::from_millis(100));
        fake.script(Call::Renew, [Answer::No]);
        let suspected = async {
            clock::sleep(Duration::from_millis(50)).await;
            context.suspect("k");
        };
        let (lease, ()) = tokio::join!(client.lock("k").acquire(), suspected);
        let (lease, granted) = (lease.unwrap(), Instant::now());
        assert!(lease.lost().await.unwrap());
        // The renewal that is due in any case comes after 10 s.
        Instant::now() - granted < Duration::from_secs(1)
    };
    shows("client-break-misses-a-grant", play, &true);
}

#[test]
fn a_break_without_an_answer_is_suspected() {
    let play = async || {
        let (client, fake) = Fake::client();
        let lease = client.lock("k").acquire().await.unwrap();
        fake.script(Call::Break, [Answer::Down]);
        fake.script(Call::Renew, [Answer::No]);
        let begun = Instant::now();
        assert!(client.break_lock("k").await.unwrap_err().is_temporary());
        assert!(lease.lost().await.unwrap());
        Instant::now() - begun < Duration::from_secs(1)
    };
    shows("client-break-in-doubt-believed-undone", play, &true);
}

#[test]
fn a_token_that_dlock_has_made_is_nobody_elses() {
    let play = async || {
        let client = Client::connect("memory://tokens").unwrap();
        let lease = client.lock("k").acquire().await.unwrap();
        let other = client.lock("k2").token(&lease.token());
        let error = other.try_acquire().await.err()?;
        assert!(!error.to_string().contains(&lease.token()), "{error}");
        Some((error.kind(), error.to_string().contains("`dlock:`"), client.lock("k").token("dlock").check().is_ok()))
    };
    shows("client-token-of-ours-taken", play, &Some((Kind::Invalid, true, true)));
}

/// All defects of this kind have their test: here, or of an exit in the tests with a server.
#[test]
fn every_defect_has_its_test() {
    let here = include_str!("close.rs");
    let lists = ["redis", "etcd"].map(|name| format!("../tests/harness/tests/{name}/mutants.txt"));
    let lists = lists.map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let ours = MUTANTS.iter().map(|(name, _)| name).filter(|name| name.starts_with("client-"));
    let is_listed = |name: &str| lists.lines().any(|line| line.split(' ').next() == Some(name));
    let missing: Vec<_> = ours.filter(|name| !here.contains(&format!("\"{name}\"")) && !is_listed(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
