//! Renewal: in batches, in time whatever the user's code does, asked again when there was no answer, and none at all
//! where the process is the lease.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::{Client, State, testing};
use fake::{Answer, Call, Fake};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How many leases were renewed so far.
fn renewed(fake: &Fake) -> usize {
    fake.asked(Call::Renew).iter().map(|asked| asked.leases).sum()
}

#[test]
fn renews_in_batches_of_at_most_500() {
    testing::simulate(1, None, async {
        let (client, fake) = Fake::client();
        let mut leases = Vec::new();
        for i in 0..1_201 {
            leases.push(client.lock(&format!("k{i}")).ttl(ms(3_000)).acquire().await.unwrap());
        }
        clock::sleep(ms(10_000)).await;
        assert!(leases.iter().all(|lease| lease.is_held()));
        let batches = fake.asked(Call::Renew);
        assert!(batches.iter().all(|batch| batch.leases <= 500));
        let first = batches.iter().filter(|batch| batch.at == batches[0].at);
        let sizes: Vec<_> = first.map(|batch| batch.leases).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 1_201, "{sizes:?}");
        assert_eq!(sizes.len(), 3, "{sizes:?}");
        assert!((27..=33).contains(&batches.len()), "every ttl/3: {}", batches.len());
    });
}

/// However many leases are held beside them, those of a short ttl are renewed in time, and cost what they are.
#[test]
fn only_what_is_due_is_looked_at() {
    testing::simulate(1, None, async {
        let (client, fake) = Fake::client();
        let mut leases = Vec::new();
        for i in 0..20_000 {
            leases.push(client.lock(&format!("long{i}")).ttl(ms(3_600_000)).acquire().await.unwrap());
        }
        for i in 0..3 {
            leases.push(client.lock(&format!("short{i}")).ttl(ms(300)).acquire().await.unwrap());
        }
        let before = testing::watchdog_looks(&client);
        clock::sleep(ms(3_000)).await;
        let looked = testing::watchdog_looks(&client) - before;
        assert!(leases.iter().all(|lease| lease.is_held()));
        let short = renewed(&fake);
        assert!((80..=110).contains(&short), "three, every 100 ms: {short}");
        assert!(looked <= 4 * 110, "{looked} looks for {short} renewals");
        // From here on without those.
        leases.truncate(20_000);
        clock::sleep(ms(1_200_000)).await;
        assert!(renewed(&fake) >= 20_000, "{}", renewed(&fake));
        assert!(leases.iter().all(|lease| lease.is_held()));
    });
}

/// A name that is taken and given back again and again is queued once.
#[test]
fn taking_and_giving_back_queues_nothing() {
    testing::simulate(1, None, async {
        let (client, _fake) = Fake::client();
        let lock = client.lock("k").ttl(ms(3_000));
        for _ in 0..1_000 {
            lock.acquire().await.unwrap().release().await.unwrap();
        }
        let lease = lock.acquire().await.unwrap();
        clock::sleep(ms(1_100)).await;
        assert!(lease.is_held());
        assert!(testing::watchdog_looks(&client) <= 3, "{}", testing::watchdog_looks(&client));
    });
}

#[test]
fn stops_with_the_release() {
    testing::simulate(1, None, async {
        let (client, fake) = Fake::client();
        let lease = client.lock("k").ttl(ms(300)).acquire().await.unwrap();
        clock::sleep(ms(1_000)).await;
        lease.release().await.unwrap();
        let renewed = fake.count(Call::Renew);
        assert!(renewed >= 9, "{renewed}");
        drop(lease);
        clock::sleep(ms(3_000)).await;
        assert_eq!(fake.count(Call::Renew), renewed);
        drop(client);
        clock::sleep(ms(1_000)).await;
        assert_eq!(Arc::strong_count(&fake), 1, "the watchdog ends with its client");
    });
}

/// "Don't know" is asked again until the end, and the loss is told before it.
#[test]
fn asks_again_without_an_answer() {
    testing::simulate(2, None, async {
        let (client, fake) = Fake::client();
        let lease = client.lock("k").ttl(ms(1_000)).acquire().await.unwrap();
        fake.script(Call::Renew, [Answer::Down]);
        clock::sleep(ms(800)).await;
        assert!(lease.is_held());
        assert!(fake.count(Call::Renew) >= 3);
        fake.script(Call::Renew, [Answer::Yes]);
        clock::sleep(ms(500)).await;
        assert!(lease.is_held(), "one answer in time is enough");
        fake.script(Call::Renew, [Answer::Down]);
        assert!(lease.lost().await.unwrap());
        assert!(Instant::now() < lease.valid_until());
    });
}

/// A countdown that began long before the grant, as that of a session does, takes nothing of what the holder was
/// promised of its hold.
#[test]
fn a_hold_counts_from_its_grant() {
    testing::simulate(2, None, async {
        let (client, fake) = Fake::client();
        fake.dated.store(-9_000, Ordering::Relaxed);
        let lock = client.lock("k").ttl(ms(30_000)).max_hold(ms(1_000));
        let lease = lock.try_acquire().await.unwrap().expect("the first grant is the one");
        let begun = Instant::now();
        assert!(lease.lost().await.unwrap());
        assert!((ms(950)..=ms(1_000)).contains(&(Instant::now() - begun)), "{:?}", Instant::now() - begun);
    });
}

/// What a backend dates in the future counts from now: a lease is never believed for longer than its ttl.
#[test]
fn no_answer_is_of_the_future() {
    testing::simulate(2, None, async {
        let (client, fake) = Fake::client();
        fake.dated.store(3_600_000, Ordering::Relaxed);
        let lease = client.lock("k").ttl(ms(3_000)).acquire().await.unwrap();
        assert!(lease.valid_for() <= ms(3_000), "{:?}", lease.valid_for());
        lease.renew(None).await.unwrap();
        assert!(lease.valid_for() <= ms(3_000), "{:?}", lease.valid_for());
        fake.script(Call::Renew, [Answer::Down]);
        clock::sleep(ms(3_000)).await;
        assert!(!lease.is_held());
    });
}

#[test]
fn the_backends_word_ends_it() {
    testing::simulate(2, None, async {
        let (client, fake) = Fake::client();
        let lease = client.lock("k").ttl(ms(3_000)).acquire().await.unwrap();
        fake.script(Call::Renew, [Answer::No]);
        let begun = Instant::now();
        assert!(lease.lost().await.unwrap());
        assert!(Instant::now() - begun <= ms(1_010));
    });
}

/// An alarm has the lease looked at now, also when a renewal is on its way that may have been answered before it.
#[test]
fn an_alarm_is_followed_at_once() {
    testing::simulate(2, None, async {
        let (client, fake, alarm) = Fake::observed();
        let lease = client.lock("k").ttl(ms(30_000)).acquire().await.unwrap();
        clock::sleep(ms(100)).await;
        alarm.suspect("k");
        alarm.suspect("another");
        clock::sleep(ms(5)).await;
        assert_eq!(fake.count(Call::Renew), 1);
        assert!(lease.is_held());

        fake.takes(Call::Renew, ms(50));
        alarm.suspect("k");
        clock::sleep(ms(20)).await;
        alarm.suspect("k");
        clock::sleep(ms(40)).await;
        fake.script(Call::Renew, [Answer::No]);
        clock::sleep(ms(100)).await;
        assert_eq!(fake.count(Call::Renew), 3, "asked again after the answer to the earlier");
        assert_eq!(lease.state(), State::Lost);
    });
}

/// The end of a session concerns all leases that it keeps, and no other.
#[test]
fn the_end_of_a_session_is_looked_at_for_all_its_leases() {
    testing::simulate(2, None, async {
        let (client, fake, alarm) = Fake::observed();
        let mut leases = Vec::new();
        for n in 0..6 {
            leases.push(client.lock(&format!("k{n}")).ttl(ms(30_000)).acquire().await.unwrap());
        }
        fake.script(Call::Renew, [Answer::No]);
        alarm.suspect_session(1);
        clock::sleep(ms(5)).await;
        let lost: Vec<_> = leases.iter().map(|lease| lease.state() == State::Lost).collect();
        let of_the_session: Vec<_> = leases.iter().map(|lease| lease.fence().unwrap() % 2 == 1).collect();
        assert_eq!(lost, of_the_session);
        assert_eq!(renewed(&fake), 3);
    });
}

/// A lease that isn't renewed is looked at as well, and ends when it would.
#[test]
fn an_alarm_prolongs_nothing() {
    testing::simulate(2, None, async {
        let (client, fake, alarm) = Fake::observed();
        let lease = client.lock("k").ttl(ms(1_000)).auto_renew(false).acquire().await.unwrap();
        let until = lease.valid_until();
        for looks in 1..=3 {
            clock::sleep(ms(200)).await;
            alarm.suspect("k");
            clock::sleep(ms(5)).await;
            assert_eq!(fake.count(Call::Renew), looks);
            assert!(fake.asked(Call::Renew)[looks - 1].longest <= ms(1_000 - 200 * looks as u64));
            assert!(lease.is_held());
        }
        assert_eq!((lease.valid_until(), lease.ttl()), (until, ms(1_000)));
        lease.renew(None).await.unwrap();
        assert!(lease.valid_until() > until, "by hand it is prolonged");
        fake.script(Call::Renew, [Answer::No]);
        alarm.suspect("k");
        clock::sleep(ms(5)).await;
        assert_eq!(lease.state(), State::Lost);
    });
}

/// The user's code runs on the pool: whatever it does there, leases are renewed.
#[test]
fn slow_callbacks_lose_no_lease() {
    let (client, fake) = Fake::client();
    let ttl = ms(300);
    let leases: Vec<_> = (0..40).map(|i| client.lock(&format!("k{i}")).ttl(ttl).acquire().wait().unwrap()).collect();
    let busy = Arc::new(AtomicU64::new(0));
    for i in 0..40 {
        let short = client.lock(&format!("short{i}")).ttl(ms(100)).auto_renew(false);
        let lease = short.acquire().wait().unwrap();
        let busy = busy.clone();
        lease.on_lost(move || {
            busy.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(ms(900));
        });
        assert!(lease.lost().wait_for(ms(5_000)).unwrap().unwrap());
        if i > 5 {
            break;
        }
    }
    std::thread::sleep(ms(950));
    assert!(busy.load(Ordering::Relaxed) > 0);
    assert!(leases.iter().all(|lease| lease.is_held()));
    assert!(fake.count(Call::Renew) > 3);
}

/// Where the process is the lease there is nothing to renew, and no thread for it.
#[cfg(target_os = "linux")]
#[test]
fn endless_leases_start_no_thread() {
    const ASKED: &str = "DLOCK_TEST_THREADS";
    if std::env::var_os(ASKED).is_none() {
        // A process of its own: other tests here start the runtime.
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "endless_leases_start_no_thread", "--test-threads=1"])
            .env(ASKED, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let names = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        let names = all.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with("dlock")).count()
    };
    let client = Client::connect("memory://threads").unwrap();
    let lease = client.lock("k").acquire().wait().unwrap();
    assert!(client.lock("k").try_acquire().wait().unwrap().is_none());
    lease.release().wait().unwrap();
    assert_eq!(names(), 0);
    let lease = client.lock("k").ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
    assert!(lease.lost().wait().unwrap());
    assert!(names() > 0, "one that ends has a watchdog");
}
