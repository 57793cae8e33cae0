//! Workloads b, many workers of one process on one key, and d, a key each; in turns with their baselines.

use std::time::Instant;

use dlock::{Client, Lock};
use serde_json::{Map, Value};

use crate::base::many;
use crate::slices::{Slice, together};
use crate::tally::{summary, tasks, threads};
use crate::{Outcome, Way};

pub(crate) fn run(url: &str, workers: usize, apart: bool) -> Outcome<Value> {
    let client = Client::connect(url)?;
    let locks: Vec<_> = (0..workers).map(|n| client.lock(&format!("bench-{}", if apart { n } else { 0 }))).collect();
    let mut told = Map::new();
    for way in Way::all(url) {
        let base = many(url, workers, apart)?;
        told.insert(way.name().to_owned(), together(url, &base, &ours(*way, &locks, apart)?)?);
    }
    Ok(told.into())
}

/// A slice of the baseline, for who is measured in another process.
pub(crate) fn raw(url: &str, workers: usize, apart: bool) -> Outcome<Value> {
    Ok(summary(&[many(url, workers, apart)?()?]))
}

fn ours<'a>(way: Way, locks: &'a [Lock], apart: bool) -> Outcome<Slice<'a>> {
    const LOCK: &str = "the lock is to be had";
    let workers = locks.len();
    let Some(runtime) = way.runtime()? else {
        return Ok(Box::new(move || {
            Ok(threads(workers, !apart, |worker, tally| {
                let mut grants = 0;
                while !tally.over() {
                    let asked = Instant::now();
                    let lease = locks[worker].acquire().wait().expect(LOCK);
                    tally.visit(worker, asked);
                    lease.release().wait().expect(LOCK);
                    grants += 1;
                }
                grants
            }))
        }));
    };
    Ok(Box::new(move || {
        tasks(&runtime, workers, !apart, |worker, tally| {
            let lock = locks[worker].clone();
            async move {
                let mut grants = 0;
                while !tally.over() {
                    let asked = Instant::now();
                    let lease = lock.acquire().await.expect(LOCK);
                    tally.visit(worker, asked);
                    lease.release().await.expect(LOCK);
                    grants += 1;
                }
                grants
            }
        })
    }))
}
