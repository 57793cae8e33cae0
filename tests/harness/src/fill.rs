//! Plays the cases of one cell of the table, in one lane or in several at the same time.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use crate::actor::{Actor, Language};
use crate::case::{Case, OF_BACKENDS};
use crate::fixture::Fixture;
use crate::play::Play;
use crate::report::Cell;

/// A cell with its progress.
pub(crate) struct Task<'a> {
    pub(crate) language: &'a Language,
    /// The cases, by their indexes in the list of all cases.
    cases: Vec<usize>,
    /// The index of the next case that no lane has taken.
    next: AtomicUsize,
    /// The number of lanes that haven't ended.
    lanes: AtomicUsize,
    begun: OnceLock<Instant>,
    cell: Mutex<Cell>,
}

impl<'a> Task<'a> {
    pub(crate) fn new(language: &'a Language, backend: &'static str, lanes: usize, cases: Vec<usize>) -> Self {
        let (next, lanes, begun) = (AtomicUsize::new(0), AtomicUsize::new(lanes), OnceLock::new());
        Self { language, cases, next, lanes, begun, cell: Mutex::new(Cell::new(language.name, backend)) }
    }

    /// Plays cases in one lane until there are no more.
    pub(crate) fn work(&self, cases: &[Case], fixture: &Fixture, folder: &Path, verbose: bool) {
        let begun = *self.begun.get_or_init(Instant::now);
        let mut idle = None;
        while let Some(&case) = self.cases.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if !self.play(&cases[case], fixture, folder, verbose, &mut idle) {
                break;
            }
        }
        drop(idle);
        if self.lanes.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut cell = self.cell.lock().unwrap();
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
        }
    }

    /// Returns the cell when all lanes have ended.
    pub(crate) fn done(self) -> Cell {
        self.cell.into_inner().unwrap()
    }

    /// Plays one case. Returns false if no interpreter can be started.
    fn play(&self, case: &Case, fixture: &Fixture, folder: &Path, verbose: bool, idle: &mut Option<Actor>) -> bool {
        let (language, log, began) = (self.language, folder.join("stderr.txt"), Instant::now());
        let main = match idle.take().map_or_else(|| Actor::start(language, folder, &[], &log), Ok) {
            Ok(main) => main,
            Err(why) => {
                let why = format!("{}: the interpreter doesn't start: {why}{}", case.name, tail(&log));
                self.cell.lock().unwrap().failed.push(why);
                return false;
            }
        };
        let of_backend = case.needs.iter().filter(|need| !can(need, fixture)).cloned();
        let lacking: Vec<_> = of_backend.chain(case.lacks(&main.able)).collect();
        if !lacking.is_empty() {
            *idle = Some(main);
            self.cell.lock().unwrap().skipped.push((case.name.clone(), lacking));
            return true;
        }
        let case = &case.slowed(fixture.min_ttl());
        let mut measured = Vec::new();
        let result = match Play::new(case, language, fixture, folder, &log) {
            Ok(mut play) => {
                let (main, result) = play.run(main);
                measured.append(&mut play.measured);
                // After a failure the next case begins with a new interpreter.
                *idle = Some(main).filter(|_| result.is_ok());
                result
            }
            Err(why) => Err(why),
        };
        let failed = result.is_err();
        let mut cell = self.cell.lock().unwrap();
        cell.measured.append(&mut measured);
        match result {
            Ok(()) => cell.passed.push(case.name.clone()),
            Err(why) => cell.failed.push(format!("{}: {why}{}", case.name, tail(&log))),
        }
        if verbose || failed {
            let (mark, ms) = (if failed { "not ok" } else { "ok" }, began.elapsed().as_millis());
            println!("{mark:<7} {:<8} {:<8} {} ({ms} ms)", cell.language, cell.backend, case.name);
        }
        let _ = std::fs::write(&log, "");
        true
    }
}

fn can(need: &str, fixture: &Fixture) -> bool {
    match need.strip_prefix("no-") {
        Some(word) => !fixture.can(word),
        None => !OF_BACKENDS.contains(&need) || fixture.can(need),
    }
}

/// Returns the last lines of an interpreter's error output.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].iter().map(|line| format!("\n    | {line}")).collect()
}
