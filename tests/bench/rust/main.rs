//! The workloads in Rust, beside their raw baselines: one JSON object, of figures by who was measured. For bench.py.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod alone;
mod base;
mod handover;
mod multiplexed;
mod processes;
mod raw;
mod serve;
mod slices;
mod tally;
mod together;

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "dlock-bench serve | a URL | b URL WORKERS | d URL WORKERS | d-raw URL WORKERS \
                     | c URL WHO RECORD SECONDS HOLD_US THINK_US";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => serve::serve(),
        ["a", url] => told(&alone::run(url)?),
        ["b", url, workers] => told(&together::run(url, workers.parse()?, false)?),
        ["d", url, workers] => told(&together::run(url, workers.parse()?, true)?),
        ["d-raw", url, workers] => told(&multiplexed::run(url, workers.parse()?)?),
        ["c", url, who, record, seconds, hold, think] => {
            let plan = processes::Plan::new(record, seconds, hold, think)?;
            processes::run(url, who, &plan)
        }
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
        if url.starts_with("redis") { &Self::ALL } else { &Self::ALL[..1] }
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
