//! `dlock-soak`: processes in several languages share locks, while faults happen to them and to their server.
//! Afterwards the program checks their histories.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

mod fleet;
mod nemesis;
mod place;
mod progress;
mod report;
mod server;
mod shards;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use dlock_harness::history::record::{self, AS_RECORDER};
use dlock_harness::history::resource::Resource;
use dlock_harness::history::{History, Phase, Plan, Verb, check};
use dlock_harness::languages::{LANGUAGES, Speakers};

use crate::fleet::Fleet;
use crate::nemesis::{Kill, Nemesis, Schedule, Stop, locked};
use crate::place::Place;
use crate::report::Found;
use crate::worker::Job;

/// The word that makes this program its own Rust worker.
const AS_WORKER: &str = "as-rust-worker";

/// A process: its language and its command.
type Crew = (&'static str, Vec<PathBuf>);

/// Shares locks among processes in several languages, injects faults into them, and checks their histories.
///
/// Exits with 1 on a violation, or if something that the run is about was never seen.
#[derive(Debug, Parser)]
#[command(name = "dlock-soak", max_term_width = 110)]
struct Options {
    /// The place of the locks: a URL, or a word. A word starts a folder or servers for this run only, with proxies
    /// before the servers. Then the run injects faults into them as well.
    #[arg(long, value_name = "URL|WORD", long_help = url_help())]
    url: String,
    /// The number of processes in each language: rust, python (blocking), asyncio, node, c.
    #[arg(long, value_name = "LANGUAGE=N,…", default_value = "rust=2,python=1,asyncio=1,node=1,c=1")]
    processes: String,
    /// The number of threads or tasks in each process.
    #[arg(long, value_name = "N", default_value_t = 3)]
    threads: u32,
    /// The number of keys that all processes share.
    #[arg(long, value_name = "N", default_value_t = 2)]
    keys: usize,
    /// The number of calls after which the run ends, if all faults were done.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    operations: u64,
    /// The number of grants after which the run ends, instead of --operations. Workers then only acquire and release.
    #[arg(long, value_name = "N", conflicts_with = "operations")]
    entries: Option<u64>,
    /// The language of a worker that sometimes enters without the lock, to show that the check notices it: rust,
    /// python, asyncio. Needs --entries.
    #[arg(long, value_name = "LANGUAGE", requires = "entries", value_parser = ["rust", "python", "asyncio"])]
    rogue: Option<String>,
    /// The deliberate defect of Rust's workers, to show that the check notices it.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME", value_parser = mutants())]
    mutant: Option<String>,
    /// The ttl, in seconds or as 300ms. A backend with a longer shortest ttl uses that one.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    ttl: Duration,
    /// The number that decides everything except the machine's timing. Default: another one each time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The number of faults. 0: none.
    #[arg(long, value_name = "N", default_value_t = 20)]
    faults: u64,
    /// The number of smaller runs into which the run is split. They run at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    shards: u64,
    /// The maximum time from the end of a lease to the report of its loss.
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = duration)]
    slack: Duration,
    #[command(flatten)]
    speakers: Speakers,
    /// The folder in which the histories are kept. Default: only those of a failed run are kept, in a new folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The folder of kept histories. The program only checks them.
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
}

fn url_help() -> String {
    let words: Vec<_> = server::words().map(|deployment| deployment.word).collect();
    format!(
        "Where the locks are: a URL, or a word: {}. A word starts a folder or servers of this run alone, and proxies \
         before the servers: faults are then done to them as well. tests/README.md says what each word starts",
        words.join(", ")
    )
}

#[cfg(feature = "mutants")]
fn mutants() -> clap::builder::PossibleValuesParser {
    dlock::mutant::MUTANTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().into()
}

impl Options {
    fn mutant(&self) -> Option<&str> {
        #[cfg(feature = "mutants")]
        return self.mutant.as_deref();
        #[cfg(not(feature = "mutants"))]
        None
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no time: 1s, 300ms"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, AS_WORKER, job] => return worker::main(job),
        [_, AS_RECORDER, path] => {
            return ExitCode::from(u8::from(record::serve(std::io::stdin(), Path::new(path)).is_err()));
        }
        _ => {}
    }
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    if let Some(kept) = &options.check {
        let verdict = read(kept).map(|history| check(&history, &Plan { slack: options.slack, ..Plan::default() }));
        return match verdict {
            Ok(verdict) => {
                report::judged(&verdict);
                ExitCode::from(u8::from(!verdict.is_good()))
            }
            Err(why) => {
                println!("dlock-soak: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let ended = if options.shards > 1 { shards::run(&options, seed) } else { run(&options, seed) };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("dlock-soak: {why} (seed {seed})\n\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// Returns the time in milliseconds, at least 1.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn run(options: &Options, seed: u64) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut folder = tempfile::Builder::new().prefix("dlock-soak-").tempdir().map_err(text)?;
    let mut fleet = Fleet::new(folder.path(), options.mutant()).map_err(text)?;
    let store = Resource::start().map_err(text)?;
    let crews = crews(options)?;
    let place = Place::new(&options.url, crews.len(), options.keys)?;
    let ttl = options.ttl.max(place.min_ttl());
    let rogue = crews.iter().position(|(language, _)| Some(*language) == options.rogue.as_deref());
    if options.rogue.is_some() && rogue.is_none() {
        return Err("--rogue: there is no process in that language".to_owned());
    }
    for (at, (language, command)) in crews.iter().cloned().enumerate() {
        let job = Job {
            url: place.url(at),
            name: String::new(),
            seed: seed ^ ((at as u64 + 1) << 40),
            keys: place.keys.clone(),
            ttl_ms: ms(ttl),
            stale_ms: ms((ttl / 10).max(place.min_ttl())),
            threads: options.threads,
            store: store.address().to_string(),
            patience_ms: place.patience_ms(),
            plain: options.entries.is_some(),
            rogue: rogue == Some(at),
        };
        fleet.add(language, command, job);
        fleet.start(at)?;
    }
    let mut all: Vec<Box<dyn Nemesis>> = vec![Box::new(Stop::default()), Box::new(Kill::default())];
    all.extend(place.faults());
    let schedule = Schedule {
        rng: fastrand::Rng::with_seed(seed),
        ttl,
        many: options.faults,
        done: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let (fleet, begun) = (Mutex::new(fleet), Instant::now());
    let trouble = std::thread::scope(|scope| {
        let nemesis = scope.spawn(|| schedule.run(&mut all, &fleet));
        let sampler = scope.spawn(|| place.sample(&folder.path().join("server.jsonl"), &schedule.over));
        let watched = progress::watch(folder.path(), options, &schedule, &fleet, || nemesis.is_finished());
        schedule.over.store(true, Ordering::Release);
        let faults = nemesis.join().unwrap_or_else(|_| Err("the faults' thread panicked".to_owned()));
        let sampled = sampler.join().unwrap_or_else(|_| Err("the sampler's thread panicked".to_owned()));
        let mut trouble: Vec<_> = [watched, faults, sampled].into_iter().filter_map(Result::err).collect();
        trouble.extend(locked(&fleet).finish());
        trouble
    });
    drop(fleet);
    let took = begun.elapsed();
    let leftovers = place.leftovers(ttl)?;
    let plan = Plan {
        slack: options.slack,
        recovery: Some(place.recovery(ttl)),
        leftovers,
        required: place.required(options.faults, options.entries.is_some()),
        forbidden: ["error internal", "error invalid", "error unsupported"].map(str::to_owned).into(),
        ..Plan::default()
    };
    let history = read(folder.path())?;
    let begun = Instant::now();
    let verdict = check(&history, &plan);
    let checked = begun.elapsed();
    let found = Found { took, checked, trouble, damage: store.damage(), entries: entries(&history, &crews) };
    let good = report::print(&verdict, found, options.entries.is_some() && options.faults == 0);
    if let Some(keep) = &options.keep {
        report::keep(folder.path(), keep).map_err(text)?;
        println!("the histories are in {}", keep.display());
    } else if !good {
        folder.disable_cleanup(true);
        println!("the histories are in {}", folder.path().display());
    }
    if !good {
        println!("again: {}", report::again(seed));
    }
    Ok(good)
}

/// Returns the languages and commands of all processes.
fn crews(options: &Options) -> Result<Vec<Crew>, String> {
    let mut all = Vec::new();
    for part in options.processes.split(',') {
        let (name, many) = part.split_once('=').ok_or(format!("{part:?}: LANGUAGE=N"))?;
        let many: usize = many.parse().map_err(|_| format!("{part:?}: LANGUAGE=N"))?;
        let command = options.speakers.command(name, "worker", AS_WORKER)?;
        let name = LANGUAGES.into_iter().find(|known| *known == name).expect("it has a command");
        all.extend(std::iter::repeat_n((name, command), many));
    }
    if all.is_empty() { Err("no processes".to_owned()) } else { Ok(all) }
}

/// Counts the grants of each language.
fn entries(history: &History, crews: &[Crew]) -> BTreeMap<&'static str, u64> {
    let mut all: BTreeMap<_, _> = crews.iter().map(|(language, _)| (*language, 0)).collect();
    let grants =
        history.events.iter().filter(|event| event.ph == Phase::Ok && matches!(event.f, Verb::Acquire | Verb::Try));
    for grant in grants {
        let language = history.text(grant.p).split('-').next().unwrap_or_default();
        if let Some(count) = all.get_mut(language) {
            *count += 1;
        }
    }
    all
}

/// Reads all files of the run as one history.
fn read(folder: &Path) -> Result<History, String> {
    let mut history = History::default();
    for entry in std::fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            history.read(&path)?;
        }
    }
    Ok(history)
}
