//! The workloads in Rust, beside their raw baselines: one JSON object a line, for bench.py.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use dlock::Client;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["a", url, raw] => alone(url, raw),
        ["b", url, workers] => together(url, workers.parse()?, false),
        ["d", url, workers] => together(url, workers.parse()?, true),
        ["c", url, shared, id, seconds, hold, think] => {
            processes(url, shared, id.parse()?, seconds.parse()?, hold.parse()?, think.parse()?)
        }
        _ => {
            Err("dlock-bench a URL RAW | b URL WORKERS | d URL WORKERS | c URL SHARED ID SECONDS HOLD_US THINK_US"
                .into())
        }
    }
}

/// One client, one key: pairs of the lock and of the baseline in turns, in one process.
fn alone(url: &str, raw: &str) -> Outcome<()> {
    const PAIRS: u32 = 20_000;
    const ROUNDS: usize = 21;
    let client = Client::connect(url)?;
    let lock = client.lock("bench-a");
    let file = (!raw.is_empty()).then(|| File::create(raw)).transpose()?;
    let own = Mutex::new(());
    let mut ratios = Vec::new();
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..PAIRS {
            match &file {
                Some(file) => {
                    file.lock()?;
                    file.unlock()?;
                }
                None => drop(std::hint::black_box(own.lock())),
            }
        }
        let base = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..PAIRS {
            let lease = lock.acquire().wait()?;
            lease.release().wait()?;
        }
        let took = begun.elapsed();
        ratios.push(base.as_secs_f64() / took.as_secs_f64());
        pairs.push(f64::from(PAIRS) / took.as_secs_f64());
    }
    println!("{{\"ratio\": {}, \"rate\": {}}}", median(&mut ratios), median(&mut pairs));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Many threads of one process, on one key or a key each, in turns with the language's own lock.
fn together(url: &str, workers: usize, apart: bool) -> Outcome<()> {
    let client = Client::connect(url)?;
    let (mut base_rate, mut rate, mut switches, mut base_switches) = (vec![], vec![], vec![], vec![]);
    let (mut longest, mut spread) = (0, vec![]);
    for _ in 0..5 {
        let own: Vec<_> = (0..workers).map(|_| Mutex::new(())).collect();
        let seen = contend(workers, |worker, visit| {
            let _own = own[if apart { worker } else { 0 }].lock();
            visit();
        });
        base_rate.push(seen.rate);
        base_switches.push(seen.switches);
        let locks: Vec<_> =
            (0..workers).map(|n| client.lock(&format!("bench-{}", if apart { n } else { 0 }))).collect();
        let seen = contend(workers, |worker, visit| {
            let lease = locks[worker].acquire().wait().expect("the lock is to be had");
            visit();
            drop(lease);
        });
        rate.push(seen.rate);
        switches.push(seen.switches);
        longest = longest.max(seen.longest_us);
        spread.push(seen.spread);
        assert!(apart || seen.overlaps == 0, "two were inside");
    }
    println!(
        "{{\"rate\": {}, \"base\": {}, \"switches\": {}, \"base_switches\": {}, \"longest_us\": {longest}, \"spread\": {}}}",
        median(&mut rate),
        median(&mut base_rate),
        median(&mut switches),
        median(&mut base_switches),
        median(&mut spread),
    );
    Ok(())
}

struct Seen {
    rate: f64,
    switches: f64,
    overlaps: u64,
    longest_us: u64,
    spread: f64,
}

fn contend(workers: usize, visit: impl Fn(usize, &dyn Fn()) + Sync) -> Seen {
    const RUN: Duration = Duration::from_millis(400);
    let (stop, owner, switches) = (AtomicBool::new(false), AtomicU64::new(u64::MAX), AtomicU64::new(0));
    let (inside, overlaps, longest) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let start = Arc::new(Barrier::new(workers + 1));
    let mut begun = Instant::now();
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let (stop, visit, start, owner, switches) = (&stop, &visit, &start, &owner, &switches);
        let (inside, overlaps, longest) = (&inside, &overlaps, &longest);
        let running: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    start.wait();
                    let mut grants = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        visit(worker, &|| {
                            let waited = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
                            longest.fetch_max(waited, Ordering::Relaxed);
                            if inside.fetch_add(1, Ordering::SeqCst) > 0 {
                                overlaps.fetch_add(1, Ordering::Relaxed);
                            }
                            if owner.swap(worker as u64, Ordering::SeqCst) != worker as u64 {
                                switches.fetch_add(1, Ordering::Relaxed);
                            }
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                        grants += 1;
                    }
                    grants
                })
            })
            .collect();
        start.wait();
        begun = Instant::now();
        std::thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        running.into_iter().map(|worker| worker.join().unwrap_or(0)).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    Seen {
        rate: counts.iter().sum::<u64>() as f64 / seconds,
        switches: switches.into_inner() as f64 / seconds,
        overlaps: overlaps.into_inner(),
        longest_us: longest.into_inner(),
        spread: *most.unwrap_or(&0) as f64 / (*least.unwrap_or(&0)).max(1) as f64,
    }
}

/// One of several processes on one key; what happened is counted in a file that all of them map by reading and writing.
fn processes(url: &str, shared: &str, id: u64, seconds: f64, hold: u64, think: u64) -> Outcome<()> {
    let client = Client::connect(url)?;
    let lock = client.lock("bench-c");
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut mine = Vec::new();
    let mut longest = 0;
    while Instant::now() < end {
        let asked = Instant::now();
        let lease = lock.acquire().wait()?;
        longest = longest.max(asked.elapsed().as_micros());
        // Fences are drawn in the order of the grants: who had it when is read off them afterwards.
        mine.push(lease.fence().unwrap_or(0));
        if hold > 0 {
            std::thread::sleep(Duration::from_micros(hold));
        }
        lease.release().wait()?;
        if think > 0 {
            std::thread::sleep(Duration::from_micros(think));
        }
    }
    std::fs::write(format!("{shared}.{id}"), mine.iter().map(|fence| format!("{fence}\n")).collect::<String>())?;
    println!("{{\"grants\": {}, \"longest_us\": {longest}}}", mine.len());
    Ok(())
}
