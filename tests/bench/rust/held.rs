//! Workload e: one client holds many locks for a while; ours, or with what that takes at the least.

use std::time::Duration;

use dlock::{Client, Lease, ReleaseOutcome};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Outcome;
use crate::base::Session as _;
use crate::calls::{Calls, Service};
use crate::raw::{Raw, Reply, packed};
use crate::{etcd, mysql, zookeeper};

const TTL: Duration = Duration::from_secs(10);
/// How often a bare client renews within a ttl.
const RENEWALS: u32 = 3;
/// How many are acquired or given back at once.
const AT_ONCE: usize = 64;
/// How many a bare client of Redis renews with one write.
const BATCH: usize = 500;
/// Prolongs a lock that is ours.
const KEEP: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end";

pub(crate) fn run(url: &str, who: &str, keys: usize, periods: u32) -> Outcome<Value> {
    let mut calls = Calls::of(url)?.ok_or("without a server nothing is renewed")?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut holder = Holder::new(&runtime, url, who)?;
    let (empty, begun) = (resident(), Instant::now());
    holder.acquire(&runtime, keys)?;
    let acquired = begun.elapsed();
    let (full, before, cpu, begun) = (resident(), calls.read()?, cpu(), Instant::now());
    holder.keep(&runtime, keys, begun, periods)?;
    let (after, cpu, minutes) = (calls.read()?, self::cpu() - cpu, begun.elapsed().as_secs_f64() / 60.0);
    let mut told = json!({
        "locks": keys,
        "lost": holder.release(&runtime, keys)?,
        "acquired_s": acquired.as_secs_f64(),
        "client_cpu_s_per_min": cpu / minutes,
        "requests_per_ttl": (after.requests - before.requests) / f64::from(periods),
    });
    if let (Some(before), Some(after)) = (before.cpu, after.cpu) {
        told["server_cpu_s_per_min"] = json!((after - before) / minutes);
    }
    if let (Some(empty), Some(full)) = (empty, full) {
        told["kib_per_lock"] = json!((full - empty) / keys as f64);
    }
    Ok(told)
}

enum Holder {
    Ours(Client, Vec<Lease>),
    /// One lease for all keys.
    Etcd(Box<etcd::Session>),
    /// The session of all nodes, and with each lock what gives it back. The crate keeps the session alive by itself.
    ZooKeeper(zookeeper::Session, Vec<zookeeper::Session>),
    /// The connection of all locks.
    MySql(Box<mysql::Session>),
    /// A wheel: what is due is renewed in pipelines.
    Redis {
        raw: Raw,
        hash: String,
    },
}

impl Holder {
    fn new(runtime: &Runtime, url: &str, who: &str) -> Outcome<Self> {
        if who == "rust" {
            let client = Client::connect(url)?;
            client.ping().wait()?;
            return Ok(Self::Ours(client, Vec::new()));
        }
        match Service::of(url) {
            Some(Service::Etcd) => return Ok(Self::Etcd(Box::new(runtime.block_on(etcd::Session::open(url))?))),
            Some(Service::MySql) => return Ok(Self::MySql(Box::new(runtime.block_on(mysql::Session::open(url))?))),
            Some(Service::ZooKeeper) => {
                return Ok(Self::ZooKeeper(runtime.block_on(zookeeper::Session::open(url))?, Vec::new()));
            }
            _ => {}
        }
        let mut raw = Raw::connect(url)?;
        let hash = raw.ask(&["SCRIPT", "LOAD", KEEP])?.text().to_owned();
        Ok(Self::Redis { raw, hash })
    }

    fn acquire(&mut self, runtime: &Runtime, keys: usize) -> Outcome<()> {
        match self {
            Self::Ours(client, leases) => {
                let work = (0..keys).map(|n| client.lock(&name(n)).ttl(TTL).acquire());
                *leases = runtime.block_on(all(work))?;
            }
            Self::Etcd(session) => {
                let take = |n| {
                    let mut session = session.clone();
                    async move { session.take(&name(n)).await }
                };
                runtime.block_on(all((0..keys).map(take)))?;
            }
            Self::ZooKeeper(session, held) => {
                let take = |n| {
                    let mut session = session.clone();
                    async move { session.take(&name(n)).await.map(|()| session) }
                };
                *held = runtime.block_on(all((0..keys).map(take)))?;
            }
            Self::MySql(session) => runtime.block_on(async {
                for n in 0..keys {
                    session.take(&name(n)).await?;
                }
                Outcome::Ok(())
            })?,
            Self::Redis { raw, .. } => {
                let ttl = TTL.as_millis().to_string();
                let take = |n| packed(&["SET", &name(n), "raw-token", "NX", "PX", &ttl]);
                raw.batches(keys, BATCH, take, |reply| reply.text() == "OK")?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, runtime: &Runtime, keys: usize, begun: Instant, periods: u32) -> Outcome<()> {
        let mut times = (1..=periods * RENEWALS).map(|turn| begun + TTL * turn / RENEWALS);
        match self {
            Self::Ours(..) => std::thread::sleep(TTL * periods),
            Self::Etcd(session) => runtime.block_on(async {
                let (mut keeper, mut kept) = session.client.lease_client().keep_alive(session.lease).await?;
                for time in times {
                    sleep_until(time).await;
                    keeper.keep_alive().await?;
                    let answer = kept.message().await?.ok_or("the stream has ended")?;
                    if answer.ttl() <= 0 {
                        return Err("the lease has ended".into());
                    }
                }
                Outcome::Ok(())
            })?,
            Self::MySql(session) => runtime.block_on(async {
                for time in times {
                    sleep_until(time).await;
                    session.keep().await?;
                }
                Outcome::Ok(())
            })?,
            Self::ZooKeeper(..) => runtime.block_on(async { sleep_until(begun + TTL * periods).await }),
            Self::Redis { raw, hash } => {
                let ttl = TTL.as_millis().to_string();
                let keep = |n| packed(&["EVALSHA", hash, "1", &name(n), "raw-token", &ttl]);
                times.try_for_each(|time| {
                    std::thread::sleep(time - Instant::now());
                    raw.batches(keys, BATCH, keep, |reply| *reply == Reply::Int(1))
                })?;
            }
        }
        Ok(())
    }

    /// Gives all back, and says how many were not held any more.
    fn release(&mut self, runtime: &Runtime, keys: usize) -> Outcome<usize> {
        match self {
            Self::Ours(_, leases) => {
                let ended = runtime.block_on(all(leases.iter().map(Lease::release)))?;
                Ok(ended.iter().filter(|ended| **ended == ReleaseOutcome::Lost).count())
            }
            Self::Etcd(session) => {
                let give = |n| {
                    let mut session = session.clone();
                    async move { session.give(&name(n)).await }
                };
                runtime.block_on(all((0..keys).map(give)))?;
                Ok(0)
            }
            Self::ZooKeeper(_, held) => {
                let give = |(n, mut session): (usize, zookeeper::Session)| async move { session.give(&name(n)).await };
                runtime.block_on(all(held.drain(..).enumerate().map(give)))?;
                Ok(0)
            }
            Self::MySql(session) => runtime.block_on(async {
                for n in 0..keys {
                    session.give(&name(n)).await?;
                }
                Outcome::Ok(0)
            }),
            Self::Redis { raw, .. } => {
                raw.batches(keys, BATCH, |n| packed(&["DEL", &name(n)]), |reply| *reply == Reply::Int(1))?;
                Ok(0)
            }
        }
    }
}

fn name(n: usize) -> String {
    format!("bench-e-{n}")
}

/// Does all of it, some at once.
async fn all<T, E, F>(mut work: impl Iterator<Item = F>) -> Outcome<Vec<T>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    crate::Failure: From<E>,
{
    let (mut running, mut done) = (JoinSet::new(), Vec::new());
    for work in work.by_ref().take(AT_ONCE) {
        running.spawn(work);
    }
    while let Some(ended) = running.join_next().await {
        done.push(ended??);
        if let Some(work) = work.next() {
            running.spawn(work);
        }
    }
    Ok(done)
}

/// Seconds of the processor's time that this process has had.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// KiB that this process has in memory, where the system tells.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}
