//! Renewal: in batches, in time whatever the user's code does, asked again when there was no answer, and none at all
//! where the process is the lease.

use std::any::Any;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::contract::{Attempt, Backend, Contender, ContenderInfo, Context, DueLease, Grant, Released, Renewal};
use dlock::runtime::BoxFuture;
use dlock::{Claim, Client, Config, Error, Result, State, testing};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Grants everything, and notes what is renewed.
#[derive(Debug, Default)]
struct Script {
    next: AtomicU64,
    batches: Mutex<Vec<(Instant, usize)>>,
    silent: AtomicBool,
    gone: AtomicBool,
    slow: AtomicU64,
    /// The longest ttl that was asked for last, in ms.
    longest: AtomicU64,
    /// How much before its grant a countdown began, in ms.
    aged: AtomicU64,
    /// How far in the future its answers are dated, in ms.
    ahead: AtomicU64,
}

impl Script {
    fn since(&self) -> Instant {
        let (aged, ahead) = (self.aged.load(Ordering::Relaxed), self.ahead.load(Ordering::Relaxed));
        Instant::now().minus(ms(aged)).plus(ms(ahead))
    }
}

#[derive(Debug)]
struct Pass(Arc<Script>, u64);

struct Bid(Arc<Script>, Claim);

impl Backend for Script {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }
    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(Bid(self, claim))
    }
    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            let since = self.since();
            self.batches.lock().unwrap().push((Instant::now(), due.len()));
            let longest = due.iter().map(|due| u64::try_from(due.ttl.as_millis()).unwrap()).max();
            self.longest.store(longest.unwrap_or(0), Ordering::Relaxed);
            assert!(due.iter().all(|due| (&*due.grant as &dyn Any).is::<Pass>()));
            clock::sleep(ms(self.slow.load(Ordering::Relaxed))).await;
            let answer = |due: &DueLease| {
                if self.silent.load(Ordering::Relaxed) {
                    Err(Error::unavailable("no answer"))
                } else if self.gone.load(Ordering::Relaxed) {
                    Ok(Renewal::Lost)
                } else {
                    Ok(Renewal::Kept { since, ttl: due.ttl })
                }
            };
            due.iter().map(answer).collect()
        })
    }
    fn contenders<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn break_lock<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(std::future::ready(Ok(false)))
    }
    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Contender for Bid {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let fence = self.0.next.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(Attempt::Granted {
            grant: Arc::new(Pass(self.0.clone(), fence)),
            since: self.0.since(),
            ttl: self.1.options.ttl,
        })))
    }
    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Grant for Pass {
    fn fences(&self) -> Option<Range<u64>> {
        Some(self.1..self.1 + 1)
    }
    /// Two sessions have the grants in turn.
    fn session(&self) -> Option<u64> {
        Some(self.1 % 2)
    }
    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        let _ = &self.0;
        Box::pin(std::future::ready(Ok(Released::Yes)))
    }
}

fn scripted() -> (Client, Arc<Script>, Context) {
    let script = Arc::new(Script::default());
    let mut context = None;
    let config = Config::from_url("memory://scripted").unwrap();
    let client = testing::client(config, |made| {
        context = Some(made);
        Ok(script.clone())
    });
    (client.unwrap(), script, context.unwrap())
}

#[test]
fn renews_in_batches_of_at_most_500() {
    testing::simulate(1, None, async {
        let (client, script, _) = scripted();
        let mut leases = Vec::new();
        for i in 0..1_201 {
            leases.push(client.lock(&format!("k{i}")).ttl(ms(3_000)).acquire().await.unwrap());
        }
        clock::sleep(ms(10_000)).await;
        assert!(leases.iter().all(|lease| lease.is_held()));
        let batches = script.batches.lock().unwrap();
        assert!(batches.iter().all(|(_, n)| *n <= 500));
        let first = batches[0].0;
        let sizes: Vec<_> = batches.iter().filter(|(at, _)| *at == first).map(|(_, n)| *n).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 1_201, "{sizes:?}");
        assert_eq!(sizes.len(), 3, "{sizes:?}");
        assert!((27..=33).contains(&batches.len()), "every ttl/3: {}", batches.len());
    });
}

/// However many leases are held beside them, those of a short ttl are renewed in time, and cost what they are.
#[test]
fn only_what_is_due_is_looked_at() {
    testing::simulate(1, None, async {
        let (client, script, _) = scripted();
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
        let renewed: usize = script.batches.lock().unwrap().iter().map(|(_, n)| n).sum();
        assert!((80..=110).contains(&renewed), "three, every 100 ms: {renewed}");
        assert!(looked <= 4 * 110, "{looked} looks for {renewed} renewals");
        // From here on without those.
        leases.truncate(20_000);
        clock::sleep(ms(1_200_000)).await;
        let renewed: usize = script.batches.lock().unwrap().iter().map(|(_, n)| n).sum();
        assert!(renewed >= 20_000, "{renewed}");
        assert!(leases.iter().all(|lease| lease.is_held()));
    });
}

/// A name that is taken and given back again and again is queued once.
#[test]
fn taking_and_giving_back_queues_nothing() {
    testing::simulate(1, None, async {
        let (client, _script, _) = scripted();
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
        let (client, script, _) = scripted();
        let lease = client.lock("k").ttl(ms(300)).acquire().await.unwrap();
        clock::sleep(ms(1_000)).await;
        lease.release().await.unwrap();
        let renewed = script.batches.lock().unwrap().len();
        assert!(renewed >= 9, "{renewed}");
        drop(lease);
        clock::sleep(ms(3_000)).await;
        assert_eq!(script.batches.lock().unwrap().len(), renewed);
        drop(client);
        clock::sleep(ms(1_000)).await;
        assert_eq!(Arc::strong_count(&script), 1, "the watchdog ends with its client");
    });
}

/// "Don't know" is asked again until the end, and the loss is told before it.
#[test]
fn asks_again_without_an_answer() {
    testing::simulate(2, None, async {
        let (client, script, _) = scripted();
        let lease = client.lock("k").ttl(ms(1_000)).acquire().await.unwrap();
        script.silent.store(true, Ordering::Relaxed);
        clock::sleep(ms(800)).await;
        assert!(lease.is_held());
        assert!(script.batches.lock().unwrap().len() >= 3);
        script.silent.store(false, Ordering::Relaxed);
        clock::sleep(ms(500)).await;
        assert!(lease.is_held(), "one answer in time is enough");
        script.silent.store(true, Ordering::Relaxed);
        assert!(lease.lost().await.unwrap());
        assert!(Instant::now() < lease.valid_until());
    });
}

/// A countdown that began long before the grant, as that of a session does, takes nothing of what the holder was
/// promised of its hold.
#[test]
fn a_hold_counts_from_its_grant() {
    testing::simulate(2, None, async {
        let (client, script, _) = scripted();
        script.aged.store(9_000, Ordering::Relaxed);
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
        let (client, script, _) = scripted();
        script.ahead.store(3_600_000, Ordering::Relaxed);
        let lease = client.lock("k").ttl(ms(3_000)).acquire().await.unwrap();
        assert!(lease.valid_for() <= ms(3_000), "{:?}", lease.valid_for());
        lease.renew(None).await.unwrap();
        assert!(lease.valid_for() <= ms(3_000), "{:?}", lease.valid_for());
        script.silent.store(true, Ordering::Relaxed);
        clock::sleep(ms(3_000)).await;
        assert!(!lease.is_held());
    });
}

#[test]
fn the_backends_word_ends_it() {
    testing::simulate(2, None, async {
        let (client, script, _) = scripted();
        let lease = client.lock("k").ttl(ms(3_000)).acquire().await.unwrap();
        script.gone.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        assert!(lease.lost().await.unwrap());
        assert!(Instant::now() - begun <= ms(1_010));
    });
}

/// An alarm has the lease looked at now, also when a renewal is on its way that may have been answered before it.
#[test]
fn an_alarm_is_followed_at_once() {
    testing::simulate(2, None, async {
        let (client, script, alarm) = scripted();
        let lease = client.lock("k").ttl(ms(30_000)).acquire().await.unwrap();
        clock::sleep(ms(100)).await;
        alarm.suspect("k");
        alarm.suspect("another");
        clock::sleep(ms(5)).await;
        assert_eq!(script.batches.lock().unwrap().len(), 1);
        assert!(lease.is_held());

        script.slow.store(50, Ordering::Relaxed);
        alarm.suspect("k");
        clock::sleep(ms(20)).await;
        alarm.suspect("k");
        clock::sleep(ms(40)).await;
        script.gone.store(true, Ordering::Relaxed);
        clock::sleep(ms(100)).await;
        assert_eq!(script.batches.lock().unwrap().len(), 3, "asked again after the answer to the earlier");
        assert_eq!(lease.state(), State::Lost);
    });
}

/// The end of a session concerns all leases that it keeps, and no other.
#[test]
fn the_end_of_a_session_is_looked_at_for_all_its_leases() {
    testing::simulate(2, None, async {
        let (client, script, alarm) = scripted();
        let mut leases = Vec::new();
        for n in 0..6 {
            leases.push(client.lock(&format!("k{n}")).ttl(ms(30_000)).acquire().await.unwrap());
        }
        script.gone.store(true, Ordering::Relaxed);
        alarm.suspect_session(1);
        clock::sleep(ms(5)).await;
        let lost: Vec<_> = leases.iter().map(|lease| lease.state() == State::Lost).collect();
        let of_the_session: Vec<_> = leases.iter().map(|lease| lease.fence().unwrap() % 2 == 1).collect();
        assert_eq!(lost, of_the_session);
        assert_eq!(script.batches.lock().unwrap().iter().map(|(_, due)| due).sum::<usize>(), 3);
    });
}

/// A lease that isn't renewed is looked at as well, and ends when it would.
#[test]
fn an_alarm_prolongs_nothing() {
    testing::simulate(2, None, async {
        let (client, script, alarm) = scripted();
        let lease = client.lock("k").ttl(ms(1_000)).auto_renew(false).acquire().await.unwrap();
        let until = lease.valid_until();
        for looks in 1..=3 {
            clock::sleep(ms(200)).await;
            alarm.suspect("k");
            clock::sleep(ms(5)).await;
            assert_eq!(script.batches.lock().unwrap().len(), looks);
            assert!(script.longest.load(Ordering::Relaxed) <= 1_000 - 200 * looks as u64);
            assert!(lease.is_held());
        }
        assert_eq!((lease.valid_until(), lease.ttl()), (until, ms(1_000)));
        lease.renew(None).await.unwrap();
        assert!(lease.valid_until() > until, "by hand it is prolonged");
        script.gone.store(true, Ordering::Relaxed);
        alarm.suspect("k");
        clock::sleep(ms(5)).await;
        assert_eq!(lease.state(), State::Lost);
    });
}

/// The user's code runs on the pool: whatever it does there, leases are renewed.
#[test]
fn slow_callbacks_lose_no_lease() {
    let (client, script, _) = scripted();
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
    assert!(script.batches.lock().unwrap().len() > 3);
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
