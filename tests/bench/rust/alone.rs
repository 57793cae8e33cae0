//! Workload a: one client, one key, pairs of acquire and release in turns with the baseline.

use std::time::{Duration, Instant};

use dlock::{Client, Lock};
use serde_json::{Map, Value};
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
