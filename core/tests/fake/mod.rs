//! The one scripted backend of these tests: what it answers to each call and how long that takes, locks that others hold,
//! and a record of what it was asked.

#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::any::Any;
use std::array;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::contract::{
    Attempt, Backend, Contender, ContenderInfo, Context, DueLease, Grant, Released, Renewal, RetryHint,
};
use dlock::runtime::BoxFuture;
use dlock::{Claim, Client, Config, Error, Result, testing};
use tokio::sync::Notify;

/// What a backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Attempt,
    Withdraw,
    Renew,
    Release,
    Contenders,
    Break,
    Ping,
    /// Nothing: a note of the test's own in the record.
    Note,
}

const CALLS: [Call; 8] =
    [Call::Attempt, Call::Withdraw, Call::Renew, Call::Release, Call::Contenders, Call::Break, Call::Ping, Call::Note];

/// What a backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What is true of its locks: granted if it is free, kept, released.
    Yes,
    /// Busy, lost, not ours.
    No,
    /// An error: it is down.
    Down,
    /// Nothing, until the call has another script.
    Never,
    /// A panic, at once or when it is polled.
    Panic { at_once: bool },
}

/// One entry of the record.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub call: Call,
    pub at: Instant,
    /// How many calls of the kind were under way then, with this one.
    pub under_way: usize,
    /// Of a renewal: of how many leases, and the longest ttl.
    pub leases: usize,
    pub longest: Duration,
}

/// How often it was asked each call; for a test with children of fork in memory that they share.
pub type Counts = [AtomicU32; CALLS.len()];

/// What nobody here holds a lock by.
const OTHERS: u64 = 0;

#[derive(Debug)]
pub struct Fake {
    /// The answers to come of each call. The last one stays.
    script: [Mutex<VecDeque<Answer>>; CALLS.len()],
    /// How long each answer takes, in ms.
    takes: [AtomicU64; CALLS.len()],
    counts: &'static Counts,
    under_way: [AtomicUsize; CALLS.len()],
    record: Mutex<Vec<Asked>>,
    held: Mutex<HashMap<String, u64>>,
    changed: Notify,
    fence: AtomicU64,
    /// The time after which a busy claim asks again, in ms. It asks sooner when a lock is free again.
    pub retry_after: AtomicU64,
    /// From when its answers count, in ms from now.
    pub dated: AtomicI64,
}

impl Fake {
    /// A client of its own, on such a backend.
    pub fn client() -> (Client, Arc<Self>) {
        let (client, fake, _) = Self::observed();
        (client, fake)
    }

    /// As [`client`](Self::client), with what the backend reports to.
    pub fn observed() -> (Client, Arc<Self>, Context) {
        Self::counting("memory://fake", Box::leak(Box::default()))
    }

    /// As [`observed`](Self::observed), of this URL and with these counts.
    pub fn counting(url: &str, counts: &'static Counts) -> (Client, Arc<Self>, Context) {
        let fake = Arc::new(Self {
            script: array::from_fn(|_| Mutex::new(VecDeque::from([Answer::Yes]))),
            takes: array::from_fn(|call| AtomicU64::new((CALLS[call] == Call::Contenders).into())),
            counts,
            under_way: array::from_fn(|_| AtomicUsize::new(0)),
            record: Mutex::default(),
            held: Mutex::default(),
            changed: Notify::new(),
            fence: AtomicU64::new(0),
            retry_after: AtomicU64::new(10_000),
            dated: AtomicI64::new(0),
        });
        let mut context = None;
        let client = testing::client(Config::from_url(url).unwrap(), |made| {
            context = Some(made);
            Ok(fake.clone())
        });
        (client.unwrap(), fake, context.unwrap())
    }

    /// From here on it answers the call so: these in turn, and then the last of them. One that waits for an answer gets it.
    pub fn script(&self, call: Call, answers: impl IntoIterator<Item = Answer>) {
        *self.script[call as usize].lock().unwrap() = answers.into_iter().collect();
        self.changed.notify_waiters();
    }

    /// From here on it answers every call so.
    pub fn script_all(&self, answer: Answer) {
        CALLS.iter().for_each(|call| self.script(*call, [answer]));
    }

    /// From here on it answers nobody, or again. Who waits learns that its connection is lost.
    pub fn set_down(&self, down: bool) {
        self.script_all(if down { Answer::Down } else { Answer::Yes });
    }

    /// How long an answer to the call takes.
    pub fn takes(&self, call: Call, time: Duration) {
        self.takes[call as usize].store(time.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }

    /// Somebody elsewhere holds it.
    pub fn hold(&self, key: &str) {
        self.held.lock().unwrap().insert(key.to_owned(), OTHERS);
    }

    /// It is free again.
    pub fn free(&self, key: &str) {
        self.held.lock().unwrap().remove(key);
        self.changed.notify_waiters();
    }

    /// Puts a note into the record.
    pub fn note(&self) {
        drop(self.begin(Call::Note, &[]));
    }

    /// How often it was asked this.
    pub fn count(&self, call: Call) -> usize {
        self.counts[call as usize].load(Ordering::SeqCst) as usize
    }

    /// How many calls of the kind have no answer yet.
    pub fn under_way(&self, call: Call) -> usize {
        self.under_way[call as usize].load(Ordering::SeqCst)
    }

    /// All that it was asked of this.
    pub fn asked(&self, call: Call) -> Vec<Asked> {
        self.record().into_iter().filter(|asked| asked.call == call).collect()
    }

    /// All that it was asked.
    pub fn record(&self) -> Vec<Asked> {
        self.record.lock().unwrap().clone()
    }

    fn begin(&self, call: Call, due: &[DueLease]) -> UnderWay<'_> {
        let mut record = self.record.lock().unwrap();
        let under_way = self.under_way[call as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let longest = due.iter().map(|due| due.ttl).max().unwrap_or_default();
        record.push(Asked { call, at: Instant::now(), under_way, leases: due.len(), longest });
        self.counts[call as usize].fetch_add(1, Ordering::SeqCst);
        UnderWay(&self.under_way[call as usize])
    }

    /// Begins a call; then answers it: yes, no, or an error.
    fn ask(&self, call: Call, due: &[DueLease]) -> impl Future<Output = Result<bool>> + Send + use<'_> {
        let under_way = self.begin(call, due);
        let next = move || {
            let mut script = self.script[call as usize].lock().unwrap();
            if script.len() > 1 { script.pop_front().unwrap() } else { script[0] }
        };
        let at_once = self.script[call as usize].lock().unwrap()[0] == Answer::Panic { at_once: true };
        assert!(!at_once, "no {call:?}");
        async move {
            let _under_way = under_way;
            let takes = self.takes[call as usize].load(Ordering::Relaxed);
            if takes > 0 {
                clock::sleep(Duration::from_millis(takes)).await;
            }
            loop {
                let changed = self.changed.notified();
                match next() {
                    Answer::Yes => return Ok(true),
                    Answer::No => return Ok(false),
                    Answer::Down => return Err(Error::unavailable("the server is down")),
                    Answer::Never => changed.await,
                    Answer::Panic { .. } => panic!("no {call:?}"),
                }
            }
        }
    }

    fn since(&self) -> Instant {
        let dated = self.dated.load(Ordering::Relaxed);
        let by = Duration::from_millis(dated.unsigned_abs());
        if dated < 0 { Instant::now().minus(by) } else { Instant::now().plus(by) }
    }

    async fn end(&self, call: Call, key: &str, nonce: u64) -> Result<Released> {
        let yes = self.ask(call, &[]).await?;
        let mut held = self.held.lock().unwrap();
        if !yes || held.get(key) != Some(&nonce) {
            return Ok(Released::NotOurs);
        }
        held.remove(key);
        self.changed.notify_waiters();
        Ok(Released::Yes)
    }
}

/// A call that has no answer yet.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend for Fake {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(Asking(self, claim))
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        assert!(due.iter().all(|due| (&*due.grant as &dyn Any).is::<Granted>()));
        let (since, asked) = (self.since(), self.ask(Call::Renew, due));
        Box::pin(async move {
            let answer = asked.await;
            let renewal =
                |due: &DueLease, kept| if kept { Renewal::Kept { since, ttl: due.ttl } } else { Renewal::Lost };
            due.iter().map(|due| answer.clone().map(|kept| renewal(due, kept))).collect()
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        let (held, asked) = (self.held.lock().unwrap().contains_key(name), self.ask(Call::Contenders, &[]));
        let mut holder = ContenderInfo::default();
        (holder.held, holder.pid) = (true, Some(4711));
        Box::pin(async move { Ok(if asked.await? && held { vec![holder] } else { Vec::new() }) })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        let asked = self.ask(Call::Break, &[]);
        Box::pin(async move { Ok(asked.await? && self.held.lock().unwrap().remove(name).is_some()) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        let asked = self.ask(Call::Ping, &[]);
        Box::pin(async move { asked.await.map(drop) })
    }
}

struct Asking(Arc<Fake>, Claim);

impl Contender for Asking {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let (fake, claim) = (&self.0, &self.1);
        let (since, asked) = (fake.since(), fake.ask(Call::Attempt, &[]));
        Box::pin(async move {
            let free = asked.await?;
            let (key, nonce) = (claim.options.name.to_string(), claim.nonce);
            let mut held = fake.held.lock().unwrap();
            if !free || *held.entry(key.clone()).or_insert(nonce) != nonce {
                drop(held);
                let after = Duration::from_millis(fake.retry_after.load(Ordering::Relaxed));
                let fake = fake.clone();
                let on: BoxFuture<'static, ()> = Box::pin(async move { fake.changed.notified().await });
                return Ok(Attempt::Busy(RetryHint { after, on: Some(on) }));
            }
            let fence = fake.fence.fetch_add(1, Ordering::Relaxed);
            let grant = Arc::new(Granted { fake: fake.clone(), key, nonce, fence });
            Ok(Attempt::Granted { grant, since, ttl: claim.options.ttl })
        })
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.0.end(Call::Withdraw, &self.1.options.name, self.1.nonce).await.map(drop) })
    }
}

#[derive(Debug)]
struct Granted {
    fake: Arc<Fake>,
    key: String,
    nonce: u64,
    fence: u64,
}

impl Grant for Granted {
    fn fences(&self) -> Option<Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    /// Two sessions have the grants in turn.
    fn session(&self) -> Option<u64> {
        Some(self.fence % 2)
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.fake.end(Call::Release, &self.key, self.nonce))
    }
}
