//! What workers on a lock have done: how often, how evenly, how long they waited, and whether two were ever inside.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Outcome;

/// How long a slice lasts.
const SLICE: Duration = Duration::from_millis(400);

/// One slice, while it runs.
pub(crate) struct Tally {
    stop: AtomicBool,
    /// Whether all are on one key.
    one_key: bool,
    owner: AtomicU64,
    switches: AtomicU64,
    inside: AtomicU64,
    overlaps: AtomicU64,
    longest_us: AtomicU64,
}

/// One slice, afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Grants, and changes of owner, of a second.
    pub(crate) grants: f64,
    pub(crate) switches: f64,
    /// All changes of owner.
    pub(crate) switched: u64,
    longest_ms: f64,
    least: u64,
    most: u64,
    overlaps: u64,
}

impl Tally {
    fn new(one_key: bool) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            stop: AtomicBool::new(false),
            one_key,
            owner: AtomicU64::new(u64::MAX),
            switches: zero(),
            inside: zero(),
            overlaps: zero(),
            longest_us: zero(),
        })
    }

    pub(crate) fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A worker has got the lock for which it asked then, and is inside during this call.
    pub(crate) fn visit(&self, worker: usize, asked: Instant) {
        let waited = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        if waited > self.longest_us.load(Ordering::Relaxed) {
            self.longest_us.fetch_max(waited, Ordering::Relaxed);
        }
        if !self.one_key {
            return;
        }
        if self.inside.fetch_add(1, Ordering::SeqCst) > 0 {
            self.overlaps.fetch_add(1, Ordering::Relaxed);
        }
        if self.owner.swap(worker as u64, Ordering::SeqCst) != worker as u64 {
            self.switches.fetch_add(1, Ordering::Relaxed);
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn seen(&self, counts: &[u64], took: Duration) -> Seen {
        let seconds = took.as_secs_f64();
        let switched = self.switches.load(Ordering::Relaxed);
        Seen {
            grants: counts.iter().sum::<u64>() as f64 / seconds,
            switches: switched as f64 / seconds,
            switched,
            longest_ms: self.longest_us.load(Ordering::Relaxed) as f64 / 1e3,
            least: counts.iter().copied().min().unwrap_or(0),
            most: counts.iter().copied().max().unwrap_or(0),
            overlaps: self.overlaps.load(Ordering::Relaxed),
        }
    }
}

/// Runs a slice of threads. `work` goes on until the tally is over, and answers its count.
pub(crate) fn threads(workers: usize, one_key: bool, work: impl Fn(usize, &Tally) -> u64 + Sync) -> Seen {
    let (tally, start) = (Tally::new(one_key), Barrier::new(workers + 1));
    let (counts, took) = std::thread::scope(|scope| {
        let (tally, start, work) = (&*tally, &start, &work);
        let begin = |worker| {
            scope.spawn(move || {
                start.wait();
                work(worker, tally)
            })
        };
        let running: Vec<_> = (0..workers).map(begin).collect();
        start.wait();
        let begun = Instant::now();
        std::thread::sleep(SLICE);
        tally.stop.store(true, Ordering::Relaxed);
        let counts: Vec<_> = running.into_iter().map(|worker| worker.join().unwrap_or(0)).collect();
        (counts, begun.elapsed())
    });
    tally.seen(&counts, took)
}

/// Runs a slice of tasks of this runtime, in the same way.
pub(crate) fn tasks<F>(
    runtime: &Runtime,
    workers: usize,
    one_key: bool,
    work: impl Fn(usize, Arc<Tally>) -> F,
) -> Outcome<Seen>
where
    F: Future<Output = u64> + Send + 'static,
{
    let tally = Tally::new(one_key);
    let running: Vec<_> = (0..workers).map(|worker| runtime.spawn(work(worker, tally.clone()))).collect();
    let seen = tally.clone();
    let end = async move {
        let begun = Instant::now();
        tokio::time::sleep(SLICE).await;
        tally.stop.store(true, Ordering::Relaxed);
        let mut counts = Vec::new();
        for worker in running {
            counts.push(worker.await?);
        }
        Ok::<_, tokio::task::JoinError>((counts, begun.elapsed()))
    };
    let (counts, took) = runtime.block_on(end)?;
    Ok(seen.seen(&counts, took))
}

/// The middle of several slices, and the worst of what must not be missed.
pub(crate) fn summary(slices: &[Seen]) -> Value {
    let middle = |of: fn(&Seen) -> f64| median(slices.iter().map(of).collect());
    let worst = slices.iter().map(|seen| seen.longest_ms).fold(0.0, f64::max);
    let mut told = json!({
        "grants_per_s": middle(|seen| seen.grants),
        "longest_ms": worst,
        "least": middle(|seen| seen.least as f64),
        "most": middle(|seen| seen.most as f64),
    });
    if slices.iter().any(|seen| seen.switched > 0) {
        told["switches_per_s"] = json!(middle(|seen| seen.switches));
        told["overlaps"] = json!(slices.iter().map(|seen| seen.overlaps).sum::<u64>());
    }
    told
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
