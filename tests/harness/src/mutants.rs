//! Tests of the tests: each deliberate defect is caught by the scenario that is there for it.

#![allow(clippy::print_stdout, reason = "how each was caught is worth a line")]

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How often a scenario is played until the defect shows: where it depends on which of two comes first, it needn't at
/// once. Without a defect a scenario is played once, and has to hold.
const PLAYS: u32 = 3;

/// Plays these scenarios of the calling test program, each under the defect it is there for.
///
/// # Panics
/// When a defect survives its scenario, or one of all whose name begins like this has none.
pub fn all_are_caught(all: &[(&str, &str)], prefix: &str, scenarios: &[(&str, &str)]) {
    let ours = all.iter().map(|(name, _)| *name).filter(|name| name.starts_with(prefix));
    let missing: Vec<_> = ours.filter(|name| !scenarios.iter().any(|(known, _)| known == name)).collect();
    assert!(missing.is_empty(), "no scenario for {missing:?}");
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

/// Whether the scenario fails under the defect, and how it says so.
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
