//! The workloads in Rust, beside their raw baselines: one JSON object, of figures by who was measured. For bench.py.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod alone;
mod base;
mod calls;
mod etcd;
mod handover;
mod held;
mod multiplexed;
mod mysql;
mod processes;
mod raw;
mod serve;
mod slices;
mod tally;
mod together;
mod zookeeper;

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Failure>;

const USAGE: &str = "dlock-bench serve BACKEND | a URL | a-raw URL PAIRS | b|b-raw|d|d-raw URL WORKERS \
                     | c URL WHO RECORD SECONDS HOLD_US THINK_US | e URL WHO KEYS PERIODS";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", backend] => serve::serve(backend),
        ["a", url] => told(&alone::run(url)?),
        ["a-raw", url, pairs] => told(&alone::raw(url, pairs.parse()?)?),
        ["b", url, workers] => told(&together::run(url, workers.parse()?, false)?),
        ["d", url, workers] => told(&together::run(url, workers.parse()?, true)?),
        ["b-raw", url, workers] => told(&together::raw(url, workers.parse()?, false)?),
        ["d-raw", url, workers] => told(&together::raw(url, workers.parse()?, true)?),
        ["c", url, who, record, seconds, hold, think] => {
            let plan = processes::Plan::new(record, seconds, hold, think)?;
            processes::run(url, who, &plan)
        }
        ["e", url, who, keys, periods] => told(&held::run(url, who, keys.parse()?, periods.parse()?)?),
        _ => Err(USAGE.into()),
    }
}

fn told(figures: &serde_json::Value) -> Outcome<()> {
    println!("{figures}");
    Ok(())
}

/// How a caller waits for our lock.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// On its thread.
    Blocking,
    /// In a runtime of its own, of one thread or of two.
    Runtime(usize),
}

impl Way {
    const ALL: [Self; 3] = [Self::Blocking, Self::Runtime(1), Self::Runtime(2)];

    /// Those of interest for a backend: where it is local, nothing is ever waited for.
    fn all(url: &str) -> &'static [Self] {
        if calls::Service::of(url).is_some() { &Self::ALL } else { &Self::ALL[..1] }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Blocking => "rust",
            Self::Runtime(1) => "rust tokio 1",
            Self::Runtime(_) => "rust tokio 2",
        }
    }

    fn runtime(self) -> Outcome<Option<Runtime>> {
        let builder = match self {
            Self::Blocking => return Ok(None),
            Self::Runtime(1) => Builder::new_current_thread().enable_all().build(),
            Self::Runtime(threads) => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
        };
        Ok(Some(builder?))
    }
}

/// Runs this as a task of the runtime.
fn task<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> Outcome<T> {
    Ok(runtime.block_on(runtime.spawn(work))?)
}
