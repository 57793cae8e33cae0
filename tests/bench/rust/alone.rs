//! Workload a: one client, one key, pairs of acquire and release in turns with the baseline.

use std::time::{Duration, Instant};

use dlock::{Client, Lock};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::base::Base;
use crate::slices::alone;
use crate::{Outcome, Way, task};

pub(crate) fn run(url: &str) -> Outcome<Value> {
    let lock = Client::connect(url)?.lock("bench-a");
    let mut base = Base::open(url)?;
    let mut told = Map::new();
    for way in Way::all(url) {
        let runtime = way.runtime()?;
        told.insert(way.name().to_owned(), alone(&mut base, |count| pairs(&lock, runtime.as_ref(), count))?);
    }
    Ok(told.into())
}

/// The seconds of so many of the baseline, for who is measured in another process.
pub(crate) fn raw(url: &str, count: u32) -> Outcome<Value> {
    let mut base = Base::open(url)?;
    base.pair()?;
    let begun = Instant::now();
    for _ in 0..count {
        base.pair()?;
    }
    Ok(json!({ "seconds": begun.elapsed().as_secs_f64() }))
}

fn pairs(lock: &Lock, runtime: Option<&Runtime>, count: u32) -> Outcome<Duration> {
    if let Some(runtime) = runtime {
        let lock = lock.clone();
        return task(runtime, async move {
            let begun = Instant::now();
            for _ in 0..count {
                let lease = lock.acquire().await?;
                lease.release().await?;
            }
            Ok::<_, dlock::Error>(begun.elapsed())
        })?
        .map_err(Into::into);
    }
    let begun = Instant::now();
    for _ in 0..count {
        let lease = lock.acquire().wait()?;
        lease.release().wait()?;
    }
    Ok(begun.elapsed())
}
