//! A backend that never answers: every call comes back all the same.

use std::sync::Arc;
use std::time::Duration;

use dlock::clock::Instant;
use dlock::contract::{Attempt, Backend, Contender, ContenderInfo, Context, DueLease, Grant, Released, Renewal};
use dlock::runtime::BoxFuture;
use dlock::{Claim, Client, Config, Kind, ReleaseOutcome, Result};

/// Grants, if it is told to, and answers nothing else.
#[derive(Debug)]
struct Mute {
    grants: bool,
}

struct Asking {
    grants: bool,
    ttl: Duration,
}

#[derive(Debug)]
struct Granted;

fn never<'a, T: Send + 'a>() -> BoxFuture<'a, T> {
    Box::pin(std::future::pending())
}

impl Backend for Mute {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(Asking { grants: self.grants, ttl: claim.options.ttl })
    }

    fn renew<'a>(&'a self, _: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        never()
    }

    fn contenders<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        never()
    }

    fn break_lock<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool>> {
        never()
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        never()
    }
}

impl Contender for Asking {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        if !self.grants {
            return never();
        }
        let (since, ttl) = (Instant::now(), self.ttl);
        Box::pin(async move { Ok(Attempt::Granted { grant: Arc::new(Granted), since, ttl }) })
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        never()
    }
}

impl Grant for Granted {
    fn fences(&self) -> Option<std::ops::Range<u64>> {
        None
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        never()
    }
}

fn client(grants: bool) -> Client {
    let make = move |_: Context| -> Result<Arc<dyn Backend>> { Ok(Arc::new(Mute { grants })) };
    dlock::testing::client(Config::from_url("memory://mute").unwrap(), make).unwrap()
}

/// Awaits a call that must fail with this kind, and within this time.
async fn ends<T: Send + std::fmt::Debug + 'static>(call: dlock::Op<T>, kind: Kind, limit: Duration) {
    let begun = Instant::now();
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(Instant::now() - begun <= limit, "{error} came after {:?}", Instant::now() - begun);
}

#[test]
fn every_call_comes_back() {
    let second = Duration::from_secs(1);
    dlock::testing::simulate(1, None, async move {
        let client = client(false);
        let lock = || client.lock("k");
        let other = || client.lock("other");
        // The deadline, and a tenth of a second. Nobody has said that the lock is busy.
        ends(lock().wait(second).acquire(), Kind::Backend, second + Duration::from_millis(101)).await;
        // What is left behind keeps the turn: the next one of this process doesn't contend beside it.
        ends(lock().wait(second).acquire(), Kind::Timeout, second + Duration::from_millis(101)).await;
        // No deadline: the outage itself.
        ends(other().acquire(), Kind::Backend, Duration::from_millis(5_101)).await;
        ends(client.lock("third").try_acquire(), Kind::Backend, Duration::from_millis(5_101)).await;
        ends(client.ping(), Kind::Backend, 5 * second).await;
        ends(client.contenders("k"), Kind::Backend, 5 * second).await;
        ends(client.break_lock("k"), Kind::Backend, 5 * second).await;
        let call = client.lock("fourth").acquire();
        call.cancel();
        ends(call, Kind::Cancelled, Duration::from_millis(251)).await;
    });
}

#[test]
fn a_lease_ends_by_its_ttl_and_its_release_is_bounded() {
    dlock::testing::simulate(1, None, async {
        let client = client(true);
        let lease = client.lock("k").ttl(Duration::from_secs(3)).acquire().await.unwrap();
        assert!(lease.is_held());
        ends(lease.renew(None), Kind::Backend, Duration::from_secs(5)).await;
        assert!(!lease.is_held());
        assert_eq!(lease.release().await.unwrap(), ReleaseOutcome::Lost);

        let lease = client.lock("l").acquire().await.unwrap();
        ends(lease.release(), Kind::Backend, Duration::from_millis(5_001)).await;
        assert!(!lease.is_held());
    });
}
