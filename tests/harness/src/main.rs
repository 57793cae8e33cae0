//! `dlock-suite`: plays the behaviour cases of `tests/cases` through every language's public API against every backend,
//! and prints one table.

#![allow(clippy::print_stdout, reason = "a program that reports")]

mod actor;
mod case;
mod fill;
mod fixture;
mod play;
mod report;
#[path = "../../run/rust.rs"]
mod rust;
mod skips;

use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use dlock_harness::backends::BACKENDS;
use dlock_harness::languages::{LANGUAGES, Speakers};

use crate::actor::{Actor, Language};
use crate::case::Case;
use crate::fill::Task;
use crate::fixture::Fixture;
use crate::report::Cell;
use crate::skips::Skips;

/// The word by which this program is its own Rust interpreter.
const AS_RUST: &str = "as-rust-interpreter";

/// Plays the behaviour cases in tests/cases through every language's public API against every backend.
///
/// Prints each failure with its file and line, the skipped cases with their reasons, the measured latencies (they never
/// fail), a table of languages and backends, and at the end `N passed, N failed`. Exits with 1 if anything failed. The
/// variable `ETCD_BIN` names the folder of etcd and etcdctl; without it they are found by PATH.
#[derive(Parser)]
#[command(name = "dlock-suite", max_term_width = 110)]
struct Options {
    #[command(flatten)]
    speakers: Speakers,
    /// Only this language: rust, python (blocking), asyncio, node, c. May be repeated.
    #[arg(long, value_name = "NAME")]
    language: Vec<String>,
    /// Only this backend, by its driver's name. May be repeated.
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,
    /// Only cases whose name (FILE/CASE) contains this text. May be repeated.
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
    /// The number of cases that are played at a time. Cases mostly wait.
    #[arg(long, value_name = "N", default_value_t = 12)]
    jobs: usize,
    /// Plays every case in every language only on the backends that are first of their kind: the one in the process and
    /// the one with a server. On each other backend it plays each case in one language, by turns.
    #[arg(long)]
    covering: bool,
    /// Prints every case when it ends, with the time that it took.
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(AS_RUST) {
        return rust::main();
    }
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("dlock-suite: {why}\n\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let mut cases = case::read_all(&options.speakers.tests.join("cases"))?;
    let tests = &options.speakers.tests;
    let skips = Skips::read(&tests.join("skips.txt"), &tests.join("../CHANGELOG.md"))?;
    let all = cases.len();
    cases.retain(|case| options.case.is_empty() || options.case.iter().any(|text| case.name.contains(text)));
    if cases.is_empty() {
        return Err(format!("no case's name contains {}", options.case.join(" or ")));
    }
    let folder = tempfile::Builder::new().prefix("dlock-suite-").tempdir().map_err(|error| error.to_string())?;
    let languages = languages(options)?;
    let backends = chosen(BACKENDS.to_vec(), &options.backend, |backend| backend.name(), "backend")?;
    println!("{} of {all} cases, {} languages, {} backends", cases.len(), languages.len(), backends.len());

    let turns = options.covering.then(|| Turns::new(&languages, folder.path()));
    let mut tasks = Vec::new();
    for (at, backend) in backends.iter().enumerate() {
        let turns = turns.as_ref().filter(|_| !backend.is_whole());
        for (own, language) in languages.iter().enumerate() {
            let mine = |case: &usize| turns.is_none_or(|turns| turns.whose(&cases[*case], case + at) == own);
            let mine = (0..cases.len()).filter(mine).collect();
            tasks.push(Task::new(language, backend.name(), backend.lanes(), mine));
        }
    }
    let mut jobs = VecDeque::new();
    for (task, backend) in tasks.iter().zip(backends.iter().flat_map(|one| languages.iter().map(move |_| *one))) {
        for lane in 0..backend.lanes() {
            let name = format!("{}-{}-{}-{lane}", task.language.name, backend.name(), std::process::id());
            let folder = folder.path().join(name);
            std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            jobs.push_back((task, Fixture::new(backend, &folder)?, folder));
        }
    }
    // The cells that take longest begin first.
    jobs.make_contiguous().sort_by_key(|(_, fixture, _)| std::cmp::Reverse(fixture.min_ttl()));
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some((task, fixture, folder)) = jobs.lock().unwrap().pop_front() else {
                        return;
                    };
                    task.work(&cases, &fixture, &folder, options.verbose);
                }
            });
        }
    });
    let whole = options.case.is_empty() && options.language.is_empty() && options.backend.is_empty();
    let mut cells: Vec<_> = tasks.into_iter().map(Task::done).collect();
    let order = |cell: &Cell| {
        let language = languages.iter().position(|language| language.name == cell.language);
        (language, backends.iter().position(|backend| backend.name() == cell.backend))
    };
    cells.sort_by_key(order);
    let all: Vec<_> = backends.iter().filter(|one| one.is_whole()).map(|one| one.name()).collect();
    Ok(report::print(&cells, &skips, whole, options.covering.then_some(&all)))
}

fn languages(options: &Options) -> Result<Vec<Language>, String> {
    // Languages that aren't played needn't be there.
    let wanted = chosen(LANGUAGES.to_vec(), &options.language, |name| name, "language")?;
    let command = |name| options.speakers.command(name, "run", AS_RUST);
    wanted.into_iter().map(|name| Ok(Language { name, command: command(name)? })).collect()
}

/// The languages' turns, for backends on which each case is played in one language.
struct Turns {
    /// The words for what each language can do.
    able: Vec<Vec<String>>,
}

impl Turns {
    fn new(languages: &[Language], folder: &Path) -> Self {
        let log = folder.join("stderr.txt");
        // An interpreter that doesn't start fails later, when it has to play.
        let able =
            |language| Actor::start(language, folder, &[], &log).map(|actor| actor.able.clone()).unwrap_or_default();
        Self { able: languages.iter().map(able).collect() }
    }

    /// Returns the language with this turn, or else the next one that can do what the case needs.
    fn whose(&self, case: &Case, turn: usize) -> usize {
        let languages = (0..self.able.len()).map(|more| (turn + more) % self.able.len());
        languages.clone().find(|own| case.lacks(&self.able[*own]).next().is_none()).unwrap_or(turn % self.able.len())
    }
}

fn chosen<T>(
    mut all: Vec<T>,
    names: &[String],
    name: impl Fn(&T) -> &'static str,
    what: &str,
) -> Result<Vec<T>, String> {
    let known: Vec<_> = all.iter().map(&name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no {what} {unknown}; there are: {}", known.join(", ")));
    }
    all.retain(|one| names.is_empty() || names.iter().any(|wanted| wanted == name(one)));
    Ok(all)
}
