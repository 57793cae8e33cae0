//! Workload c: one of several processes on one key. What it held and when goes into a file.

use std::io::Read;
use std::time::Duration;

use dlock::Client;
use dlock::clock::Instant;

use crate::base::Pair;
use crate::calls::Service;
use crate::handover::Handover;
use crate::{Outcome, Way, etcd, mysql, task, zookeeper};

/// What a process does between acquiring and acquiring, and for how long.
#[derive(Clone)]
pub(crate) struct Plan {
    record: String,
    time: Duration,
    hold: Duration,
    think: Duration,
}

impl Plan {
    pub(crate) fn new(record: &str, seconds: &str, hold: &str, think: &str) -> Outcome<Self> {
        Ok(Self {
            record: record.to_owned(),
            time: Duration::from_secs_f64(seconds.parse()?),
            hold: Duration::from_micros(hold.parse()?),
            think: Duration::from_micros(think.parse()?),
        })
    }

    /// Waits until all have started.
    fn ready(&self) -> Outcome<Instant> {
        println!("ready");
        let mut go = [0];
        std::io::stdin().read_exact(&mut go)?;
        Ok(Instant::now().plus(self.time))
    }
}

/// The holds of this process, as times of a clock that all share.
#[derive(Default)]
struct Record {
    holds: Vec<u8>,
    longest: Duration,
}

impl Record {
    fn hold(&mut self, asked: Instant, begun: Instant) {
        self.longest = self.longest.max(begun - asked);
        for time in [begun, Instant::now()] {
            self.holds.extend(time.nanos().to_le_bytes());
        }
    }
}

pub(crate) fn run(url: &str, who: &str, plan: &Plan) -> Outcome<()> {
    let way = Way::ALL.into_iter().find(|way| way.name() == who);
    let record = match way {
        None => bare(url, plan)?,
        Some(way) => match way.runtime()? {
            None => waiting(url, plan)?,
            Some(runtime) => {
                let (url, plan) = (url.to_owned(), plan.clone());
                task(&runtime, async move { awaiting(&url, &plan).await })??
            }
        },
    };
    std::fs::write(&plan.record, &record.holds)?;
    println!("{{\"longest_ms\": {}}}", record.longest.as_secs_f64() * 1e3);
    Ok(())
}

fn waiting(url: &str, plan: &Plan) -> Outcome<Record> {
    let lock = Client::connect(url)?.lock("bench-c");
    lock.acquire().wait()?.release().wait()?;
    let (end, mut record) = (plan.ready()?, Record::default());
    while !end.passed() {
        let asked = Instant::now();
        let lease = lock.acquire().wait()?;
        let begun = Instant::now();
        pause(plan.hold);
        record.hold(asked, begun);
        lease.release().wait()?;
        pause(plan.think);
    }
    Ok(record)
}

async fn awaiting(url: &str, plan: &Plan) -> Outcome<Record> {
    let lock = Client::connect(url)?.lock("bench-c");
    lock.acquire().await?.release().await?;
    let (end, mut record) = (plan.ready()?, Record::default());
    while !end.passed() {
        let asked = Instant::now();
        let lease = lock.acquire().await?;
        let begun = Instant::now();
        // Nothing else runs here, and the runtime's timers are of whole milliseconds.
        pause(plan.hold);
        record.hold(asked, begun);
        lease.release().await?;
        pause(plan.think);
    }
    Ok(record)
}

fn bare(url: &str, plan: &Plan) -> Outcome<Record> {
    let mut lock: Box<dyn Pair> = match Service::of(url) {
        Some(Service::Etcd) => Box::new(etcd::Handover::new(url, "raw-c")?),
        Some(Service::MySql) => Box::new(mysql::Handover::new(url, "raw-c")?),
        Some(Service::ZooKeeper) => Box::new(zookeeper::Handover::new(url, "raw-c")?),
        _ => Box::new(Handover::new(url, "raw-c")?),
    };
    lock.take()?;
    lock.give()?;
    let (end, mut record) = (plan.ready()?, Record::default());
    while !end.passed() {
        let asked = Instant::now();
        lock.take()?;
        let begun = Instant::now();
        pause(plan.hold);
        record.hold(asked, begun);
        lock.give()?;
        pause(plan.think);
    }
    Ok(record)
}

fn pause(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}
