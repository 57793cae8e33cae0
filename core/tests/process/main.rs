//! What belongs to one process: its runtime and its threads, and what forks, signals and limits do to them.
//!
//! Each test runs in a process of its own, which has one thread of the test's and those that the library makes.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "fork, signals and limits have no safe form")]
#![allow(unreachable_pub, reason = "a test binary, nothing of which is public")]

mod driving;
#[path = "../fake/mod.rs"]
mod fake;
mod fork;
mod hooks;
mod limits;
mod pools;
mod shared;
mod shim;
mod threads;
mod waits;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use dlock::testing::MUTANTS;

/// Which scenario fails under which deliberate defect.
const CAUGHT: &[(&str, &str)] = &[
    ("process-forked-call-goes-on", "fork::a_call_belongs_to_the_process_that_made_it"),
    ("process-calls-count-as-driving", "driving::a_call_that_is_ready_drives_nothing"),
    ("process-dropped-wait-goes-on", "waits::whoever_leaves_a_wait_leaves_nothing"),
    ("process-hooks-where-they-are", "hooks::a_hook_that_waits_stops_nothing"),
    ("process-one-pool-for-all", "pools::blocked_callbacks_stop_no_resolution"),
    ("process-signals-taken", "threads::signals_are_the_programs"),
];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const ALONE: &str = "DLOCK_TEST_ALONE";

fn run(test: &str, mutant: &str) -> Output {
    let mut line = Command::new(std::env::current_exe().unwrap());
    line.args(["--exact", test, "--test-threads=1", "--nocapture"]).env(ALONE, "1").env("DLOCK_MUTANT", mutant);
    line.output().unwrap()
}

/// Runs a test again in a process of its own; true there.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let run = run(test, "");
    let told = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(run.status.success() && told.contains("running 1 test"), "{told}");
    false
}

#[test]
fn every_defect_is_caught() {
    let ours: Vec<_> = MUTANTS.iter().map(|(name, _)| *name).filter(|name| name.starts_with("process-")).collect();
    let missing: Vec<_> = ours.iter().filter(|name| !CAUGHT.iter().any(|(known, _)| known == *name)).collect();
    assert!(missing.is_empty(), "no scenario for {missing:?}");
    std::thread::scope(|scope| {
        for (mutant, scenario) in CAUGHT {
            scope.spawn(move || {
                let run = run(scenario, mutant);
                let told = String::from_utf8_lossy(&run.stdout);
                assert!(told.contains("running 1 test"), "there is no scenario {scenario}");
                assert!(!run.status.success(), "{mutant} survives {scenario}");
            });
        }
    });
}

/// Waits for it, in small steps.
fn until(what: &str, mut come: impl FnMut() -> bool) {
    let end = Instant::now() + ms(10_000);
    while !come() {
        assert!(Instant::now() < end, "it never came about: {what}");
        std::thread::sleep(ms(1));
    }
}

/// Does this in a child of fork; it has to return true there, within 20 seconds.
fn child(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child runs nothing but the test's own code and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: a child that hangs is ended by its alarm.
        unsafe { libc::alarm(20) };
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends this process, without its parent's destructors.
        unsafe { libc::_exit(if fine { 0 } else { 1 }) };
    }
    pid
}

fn succeeded(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is valid for the write, `pid` is a child of this process.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the child failed (a status of 14 is its alarm)");
}
