//! The tests of the tests: a scenario has to catch each deliberate defect.

#![allow(clippy::print_stdout, reason = "how each was caught is worth a line")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The number of times that a scenario is played until the defect shows. A defect that depends on the order of two
/// events needn't show at once. Without a defect a scenario is played once, and has to pass.
const PLAYS: u32 = 3;

/// Plays the scenarios of the calling test program under their defects: the scenarios of a backend's `mutants.txt` that
/// are in `program`.
///
/// # Panics
/// If a defect survives its scenario, or the list lacks a defect whose name begins with that of the backend.
pub fn all_are_caught(all: &[(&str, &str)], backend: &str, program: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(backend).join("mutants.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let list: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(defect).collect();
    let ours = all.iter().map(|(name, _)| *name).filter(|name| name.starts_with(&format!("{backend}-")));
    let missing: Vec<_> = ours.filter(|name| !list.iter().any(|(known, _)| known == name)).collect();
    assert!(missing.is_empty(), "no scenario for {missing:?}");
    let in_program = |(mutant, scenario): &(_, &'_ str)| {
        let (of, scenario) = scenario.strip_prefix("faults::").map_or((backend, *scenario), |rest| ("faults", rest));
        (of == program).then(|| (*mutant, scenario.to_owned()))
    };
    let scenarios: Vec<(&str, String)> = list.iter().filter_map(in_program).collect();
    assert!(!scenarios.is_empty(), "{} has no line for {program}", path.display());
    let next = AtomicUsize::new(0);
    let lane = || {
        let mut survivors = Vec::new();
        while let Some((mutant, scenario)) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            match caught(mutant, scenario) {
                Ok(how) => println!("{mutant:36} {scenario:76} {how}"),
                Err(why) => survivors.push(why),
            }
        }
        survivors
    };
    let survivors: Vec<_> = std::thread::scope(|scope| {
        let lanes = [scope.spawn(lane), scope.spawn(lane)];
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane doesn't panic")).collect()
    });
    assert!(survivors.is_empty(), "{survivors:#?}");
}

/// Splits a line of the list.
fn defect(line: &str) -> (&str, &str) {
    let (mutant, scenario) = line.split_once(' ').unwrap_or_else(|| panic!("DEFECT SCENARIO: {line:?}"));
    (mutant, scenario.trim())
}

/// Returns the scenario's failure under the defect. It is an error if the scenario doesn't fail.
fn caught(mutant: &str, scenario: &str) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    for play in 1..=PLAYS {
        let begun = Instant::now();
        let mut line = Command::new(&program);
        let done = line.args(["--exact", scenario]).env("DLOCK_MUTANT", mutant).output();
        let done = done.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&done.stdout);
        if !said.contains("running 1 test") {
            return Err(format!("there is no scenario {scenario}"));
        }
        if !done.status.success() {
            let how = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
            let (time, how) = (begun.elapsed().as_secs_f64(), how.unwrap_or("it was killed"));
            return Ok(format!("{time:>5.1} s, play {play}  {how}"));
        }
    }
    Err(format!("{mutant} survives {scenario}, {PLAYS} times"))
}
