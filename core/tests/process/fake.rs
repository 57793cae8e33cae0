//! A backend that grants when it is told to, and counts what it is asked, in memory that children of fork share.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dlock::clock::Instant;
use dlock::contract::{Attempt, Backend, Contender, ContenderInfo, DueLease, Grant, Released, Renewal, RetryHint};
use dlock::runtime::BoxFuture;
use dlock::{Claim, Client, Config, Result, testing};

use crate::ms;

/// What is shared with children.
#[derive(Debug)]
#[repr(C)]
pub struct Asked {
    pub grants: AtomicU32,
    pub renewals: AtomicU32,
    /// Whether the last attempt was told that it is busy, and no other has begun.
    pub pausing: AtomicU32,
    /// Withdrawals and releases.
    pub ended: AtomicU32,
}

#[derive(Clone, Copy)]
struct Fake(&'static Asked);

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

#[derive(Debug)]
struct Granted(Fake);

struct Asking(Fake, Claim);

/// A client of one that grants nothing yet.
pub fn client() -> (Client, &'static Asked) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // SAFETY: a fresh page of zeros, which is never unmapped, and is valid for the counters.
    let asked = unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let page = libc::mmap(std::ptr::null_mut(), size_of::<Asked>(), access, kind, -1, 0);
        assert!(page != libc::MAP_FAILED);
        &*page.cast::<Asked>()
    };
    let config = Config::from_url(&format!("memory://fake-{}", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap();
    (testing::client(config, move |_| Ok(Arc::new(Fake(asked)))).unwrap(), asked)
}

impl Backend for Fake {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(Asking(*self, claim))
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        let since = Instant::now();
        self.0.renewals.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { due.iter().map(|due| Ok(Renewal::Kept { since, ttl: due.ttl })).collect() })
    }

    fn contenders<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn break_lock<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl Contender for Asking {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let (fake, since, ttl) = (self.0, Instant::now(), self.1.options.ttl);
        fake.0.pausing.store(0, Ordering::SeqCst);
        Box::pin(async move {
            // An exchange with a server takes its time.
            dlock::clock::sleep(ms(1)).await;
            Ok(match fake.0.grants.load(Ordering::SeqCst) {
                0 => {
                    fake.0.pausing.store(1, Ordering::SeqCst);
                    Attempt::Busy(RetryHint { after: ms(5), on: None })
                }
                _ => Attempt::Granted { grant: Arc::new(Granted(fake)), since, ttl },
            })
        })
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        self.0.0.ended.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

impl Grant for Granted {
    fn fences(&self) -> Option<Range<u64>> {
        None
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        self.0.0.ended.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(Released::Yes)))
    }
}
