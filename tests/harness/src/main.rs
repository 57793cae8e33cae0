//! `dlock-suite`: plays the behaviour cases of `tests/cases` through every language's public API against every backend,
//! and prints one table.

#![allow(clippy::print_stdout, reason = "a program that reports")]

mod actor;
mod case;
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
use std::time::Instant;

use clap::Parser;
use dlock::backend::DRIVERS;
use dlock_harness::languages::{LANGUAGES, Speakers};

use crate::actor::{Actor, Language};
use crate::case::{Case, OF_BACKENDS, OF_LANGUAGES};
use crate::fixture::Fixture;
use crate::play::Play;
use crate::report::Cell;
use crate::skips::Skips;

/// The word by which this program is its own Rust interpreter.
const AS_RUST: &str = "as-rust-interpreter";

/// Plays the behaviour cases in tests/cases through every language's public API against every backend.
///
/// Prints each failure with its file and line, what was skipped and why, the latencies the cases asked for (they never
/// fail), a table of languages and backends, and last `N passed, N failed`. Ends with 1 if anything failed.
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
    /// How many cells of the table are worked on at a time: most of it is waiting.
    #[arg(long, value_name = "N", default_value_t = 4)]
    jobs: usize,
    /// Prints every case as it ends, with the time it took.
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
    let drivers = chosen(DRIVERS.to_vec(), &options.backend, |driver| driver.name, "backend")?;
    println!("{} of {all} cases, {} languages, {} backends", cases.len(), languages.len(), drivers.len());

    let mut jobs = VecDeque::new();
    for language in &languages {
        for driver in &drivers {
            let folder = folder.path().join(format!("{}-{}-{}", language.name, driver.name, std::process::id()));
            std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            jobs.push_back((language, Fixture::new(driver, &folder)?, folder));
        }
    }
    let (jobs, cells) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some((language, fixture, folder)) = jobs.lock().unwrap().pop_front() else {
                        return;
                    };
                    let cell = fill(&cases, language, &fixture, &folder, options.verbose);
                    cells.lock().unwrap().push(cell);
                }
            });
        }
    });
    let whole = options.case.is_empty() && options.language.is_empty() && options.backend.is_empty();
    let mut cells = cells.into_inner().unwrap();
    let order = |cell: &Cell| {
        let language = languages.iter().position(|language| language.name == cell.language);
        (language, drivers.iter().position(|driver| driver.name == cell.backend))
    };
    cells.sort_by_key(order);
    Ok(report::print(&cells, &skips, whole))
}

fn languages(options: &Options) -> Result<Vec<Language>, String> {
    // Those that aren't played needn't be there.
    let wanted = chosen(LANGUAGES.to_vec(), &options.language, |name| name, "language")?;
    let command = |name| options.speakers.command(name, "run", AS_RUST);
    wanted.into_iter().map(|name| Ok(Language { name, command: command(name)? })).collect()
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

/// Plays all cases in one language against one backend.
fn fill(cases: &[Case], language: &Language, fixture: &Fixture, folder: &Path, verbose: bool) -> Cell {
    let begun = Instant::now();
    let log = folder.join("stderr.txt");
    let mut cell = Cell::new(language.name, fixture.name());
    let mut idle: Option<Actor> = None;
    for case in cases {
        let began = Instant::now();
        let main = match idle.take().map_or_else(|| Actor::start(language, folder, &[], &log), Ok) {
            Ok(main) => main,
            Err(why) => {
                cell.failed.push(format!("{}: the interpreter doesn't start: {why}{}", case.name, tail(&log)));
                break;
            }
        };
        let lacking: Vec<_> = case.needs.iter().filter(|need| !can(need, fixture, &main)).cloned().collect();
        if !lacking.is_empty() {
            idle = Some(main);
            cell.skipped.push((case.name.clone(), lacking));
            continue;
        }
        let case = &case.slowed(fixture.min_ttl());
        let result = match Play::new(case, language, fixture, folder, &log) {
            Ok(mut play) => {
                let (main, result) = play.run(main);
                cell.measured.append(&mut play.measured);
                // After a failure the next case begins with a fresh one.
                idle = Some(main).filter(|_| result.is_ok());
                result
            }
            Err(why) => Err(why),
        };
        let failed = result.is_err();
        match result {
            Ok(()) => cell.passed.push(case.name.clone()),
            Err(why) => cell.failed.push(format!("{}: {why}{}", case.name, tail(&log))),
        }
        if verbose || failed {
            let (mark, ms) = (if failed { "not ok" } else { "ok" }, began.elapsed().as_millis());
            println!("{mark:<7} {:<8} {:<8} {} ({ms} ms)", cell.language, cell.backend, case.name);
        }
        let _ = std::fs::write(&log, "");
    }
    cell.took = begun.elapsed();
    println!(
        "{:<8} on {:<8} {} passed, {} failed, {} skipped in {:.1} s",
        cell.language,
        cell.backend,
        cell.passed.len(),
        cell.failed.len(),
        cell.skipped.len(),
        cell.took.as_secs_f64()
    );
    cell
}

fn can(need: &str, fixture: &Fixture, main: &Actor) -> bool {
    match need.strip_prefix("no-") {
        Some(word) => !fixture.can(word),
        None => {
            (!OF_BACKENDS.contains(&need) || fixture.can(need))
                && (!OF_LANGUAGES.contains(&need) || main.able.iter().any(|able| able == need))
        }
    }
}

/// What an interpreter complained of, its last lines.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].iter().map(|line| format!("\n    | {line}")).collect()
}
