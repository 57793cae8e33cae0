//! A backend of the test's own: locks that others hold, a server that is down, withdrawals that take their time, and counts of
//! what it was asked.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::contract::{Attempt, Backend, Contender, ContenderInfo, DueLease, Grant, Released, Renewal, RetryHint};
use dlock::runtime::BoxFuture;
use dlock::{Claim, Client, Config, Error, Result, testing};
use tokio::sync::Notify;

/// What nobody here holds a lock by.
const OTHERS: u64 = 0;

#[derive(Debug, Default)]
pub struct Fake {
    held: Mutex<HashMap<String, u64>>,
    down: AtomicBool,
    changed: Notify,
    /// How long a withdrawal and a release take, in ms.
    pub slow: AtomicU64,
    pub looks: AtomicUsize,
    pub pings: AtomicUsize,
    fence: AtomicU64,
}

impl Fake {
    /// A client of its own, on such a backend.
    pub fn client() -> (Client, Arc<Self>) {
        let fake = Arc::new(Self::default());
        let config = Config::from_url("memory://fake").unwrap();
        (testing::client(config, |_| Ok(fake.clone())).unwrap(), fake)
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

    /// From here on it answers nobody, or again. Who waits learns that its connection is lost.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn answer(&self) -> Result<()> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(Error::unavailable("the server is down")),
            false => Ok(()),
        }
    }

    async fn end(&self, key: &str, nonce: u64) -> Result<Released> {
        clock::sleep(Duration::from_millis(self.slow.load(Ordering::Relaxed))).await;
        self.answer()?;
        let mut held = self.held.lock().unwrap();
        if held.get(key) != Some(&nonce) {
            return Ok(Released::NotOurs);
        }
        held.remove(key);
        self.changed.notify_waiters();
        Ok(Released::Yes)
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
        let since = Instant::now();
        let answers = due.iter().map(|due| self.answer().map(|()| Renewal::Kept { since, ttl: due.ttl }));
        Box::pin(std::future::ready(answers.collect()))
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let mut holder = ContenderInfo::default();
        (holder.held, holder.pid) = (true, Some(4711));
        let held = self.held.lock().unwrap().contains_key(name);
        Box::pin(async move {
            clock::sleep(Duration::from_millis(1)).await;
            self.answer()?;
            Ok(if held { vec![holder] } else { Vec::new() })
        })
    }

    fn break_lock<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.pings.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(self.answer()))
    }
}

struct Asking(Arc<Fake>, Claim);

impl Contender for Asking {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let (fake, claim) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            fake.answer()?;
            let key = claim.options.name.to_string();
            let mut held = fake.held.lock().unwrap();
            if *held.entry(key.clone()).or_insert(claim.nonce) != claim.nonce {
                drop(held);
                let on: BoxFuture<'static, ()> = {
                    let fake = fake.clone();
                    Box::pin(async move { fake.changed.notified().await })
                };
                return Ok(Attempt::Busy(RetryHint { after: Duration::from_secs(10), on: Some(on) }));
            }
            let fence = fake.fence.fetch_add(1, Ordering::Relaxed);
            let grant = Arc::new(Granted { fake: fake.clone(), key, nonce: claim.nonce, fence });
            Ok(Attempt::Granted { grant, since: Instant::now(), ttl: claim.options.ttl })
        })
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.0.end(&self.1.options.name, self.1.nonce).await.map(drop) })
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

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.fake.end(&self.key, self.nonce))
    }
}
