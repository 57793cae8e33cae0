//! rslock, the lock service of etcd, and the lock of the ZooKeeper crate, in the workloads: as `dlock-bench`, in a runtime
//! of two threads.

#[path = "../../rust/base.rs"]
mod base;
#[path = "../../rust/calls.rs"]
#[allow(dead_code)]
mod calls;
#[path = "../../rust/etcd.rs"]
#[allow(dead_code)]
mod etcd;
#[path = "../../rust/multiplexed.rs"]
#[allow(dead_code)]
mod multiplexed;
#[path = "../../rust/mysql.rs"]
#[allow(dead_code)]
mod mysql;
#[path = "../../rust/raw.rs"]
#[allow(dead_code)]
mod raw;
#[path = "../../rust/slices.rs"]
mod slices;
#[path = "../../rust/tally.rs"]
mod tally;
#[path = "../../rust/zookeeper.rs"]
#[allow(dead_code)]
mod zookeeper;

use std::io::Read;
use std::time::{Duration, Instant};

use base::Session as _;
use calls::Service;
use etcd_client::{Client, LockOptions};
use rslock::LockManager;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use zookeeper_client::{Acls, CreateMode, LockOptions as NodeOptions, LockPrefix};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TTL: Duration = Duration::from_secs(30);
const LOCK: &str = "the lock is to be had";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let told = match arguments[..] {
        ["a", url] => alone(&runtime, url)?,
        ["b", url, workers] => together(&runtime, url, workers.parse()?, false)?,
        ["d", url, workers] => together(&runtime, url, workers.parse()?, true)?,
        ["c", url, _, record, seconds, hold, think] => {
            return processes(&runtime, url, record, [seconds.parse()?, hold.parse()?, think.parse()?]);
        }
        _ => return Err("a URL | b URL WORKERS | d URL WORKERS | c URL WHO RECORD SECONDS HOLD_US THINK_US".into()),
    };
    let who = match Service::of(arguments[1]) {
        Some(Service::Etcd) => "etcd-client",
        Some(Service::ZooKeeper) => "zookeeper-client",
        _ => "rslock",
    };
    println!("{}", json!({ who: told }));
    Ok(())
}

/// One contender.
#[derive(Clone)]
enum Peer {
    Rslock(LockManager),
    /// With a lease of its own: those of one lease are one contender.
    Etcd(Client, i64),
    ZooKeeper(zookeeper_client::Client),
}

impl Peer {
    async fn new(url: &str) -> Outcome<Self> {
        Ok(match Service::of(url) {
            Some(Service::Etcd) => {
                let session = etcd::Session::open(url).await?;
                Self::Etcd(session.client, session.lease)
            }
            Some(Service::ZooKeeper) => Self::ZooKeeper(zookeeper::Session::open(url).await?.client),
            _ => Self::Rslock(LockManager::new(vec![url])),
        })
    }

    /// Another one of this process.
    async fn another(&self) -> Outcome<Self> {
        Ok(match self {
            Self::Rslock(_) | Self::ZooKeeper(_) => self.clone(),
            Self::Etcd(client, _) => {
                let lease = client.lease_client().grant(600, None).await?;
                Self::Etcd(client.clone(), lease.id())
            }
        })
    }

    async fn pair(&mut self, key: &str, visit: impl FnOnce()) {
        match self {
            Self::Rslock(lock) => {
                let held = lock.acquire_no_guard(key, TTL).await.expect(LOCK);
                visit();
                lock.unlock(&held).await;
            }
            Self::Etcd(client, lease) => {
                let mut lock = client.lock_client();
                let held = lock.lock(key, Some(LockOptions::new().with_lease(*lease))).await.expect(LOCK);
                visit();
                lock.unlock(held.key()).await.expect(LOCK);
            }
            Self::ZooKeeper(client) => {
                let (directory, acls) = (format!("/peers/{key}"), Acls::anyone_all());
                let parent = CreateMode::Persistent.with_acls(acls);
                let options = NodeOptions::new(acls).with_ancestor_options(parent).expect(LOCK);
                let prefix = LockPrefix::new_curator(&directory, "lock-").expect(LOCK);
                let held = client.lock(prefix, b"", options).await.expect(LOCK);
                visit();
                // What is dropped is deleted in the background: not at all, if the process ends before.
                client.delete(held.lock_path(), None).await.expect(LOCK);
                std::mem::forget(held);
            }
        }
    }
}

fn alone(runtime: &Runtime, url: &str) -> Outcome<Value> {
    let peer = runtime.block_on(Peer::new(url))?;
    slices::alone(&mut base::Base::open(url)?, |count| {
        let mut peer = peer.clone();
        let slice = runtime.spawn(async move {
            let begun = Instant::now();
            for _ in 0..count {
                peer.pair("peer-a", || ()).await;
            }
            begun.elapsed()
        });
        Ok(runtime.block_on(slice)?)
    })
}

fn together(runtime: &Runtime, url: &str, workers: usize, apart: bool) -> Outcome<Value> {
    let peer = runtime.block_on(Peer::new(url))?;
    let peers: Outcome<Vec<_>> = (0..workers).map(|_| runtime.block_on(peer.another())).collect();
    let peers = peers?;
    let run: slices::Slice<'_> = Box::new(|| {
        tally::tasks(runtime, workers, !apart, |worker, tally| {
            let (mut peer, key) = (peers[worker].clone(), format!("peer-{}", if apart { worker } else { 0 }));
            async move {
                let mut grants = 0;
                while !tally.over() {
                    let asked = Instant::now();
                    peer.pair(&key, || tally.visit(worker, asked)).await;
                    grants += 1;
                }
                grants
            }
        })
    });
    slices::together(url, &base::many(url, workers, apart)?, &run)
}

fn processes(runtime: &Runtime, url: &str, record: &str, [seconds, hold, think]: [f64; 3]) -> Outcome<()> {
    let mut peer = runtime.block_on(Peer::new(url))?;
    runtime.block_on(peer.pair("peer-c", || ()));
    println!("ready");
    std::io::stdin().read_exact(&mut [0])?;
    let pause = |us: f64| std::thread::sleep(Duration::from_secs_f64(us / 1e6));
    let (begun, mut longest, mut holds) = (Instant::now(), Duration::ZERO, Vec::new());
    while begun.elapsed().as_secs_f64() < seconds {
        let asked = Instant::now();
        runtime.block_on(peer.pair("peer-c", || {
            longest = longest.max(asked.elapsed());
            holds.extend(nanos().to_le_bytes());
            if hold > 0.0 {
                pause(hold);
            }
            holds.extend(nanos().to_le_bytes());
        }));
        if think > 0.0 {
            pause(think);
        }
    }
    std::fs::write(record, &holds)?;
    println!("{}", json!({ "longest_ms": longest.as_secs_f64() * 1e3 }));
    Ok(())
}

/// A clock that all processes share.
fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
