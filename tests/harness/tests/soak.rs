//! The contention run of dlock-soak, in Rust alone: it passes, and it notices a worker that enters without the lock.

use std::process::{Command, Output};

fn soak(words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlock-soak"));
    command.args(["--url", "file", "--processes", "rust=3", "--keys", "1", "--entries", "2000", "--faults", "0"]);
    let Output { status, stdout, .. } = command.args(words).output().unwrap();
    (status.success(), String::from_utf8_lossy(&stdout).into_owned())
}

#[test]
fn processes_that_share_one_key_are_never_inside_together() {
    let folder = tempfile::tempdir().unwrap();
    let (passed, said) = soak(&["--keep", &folder.path().display().to_string()]);
    assert!(passed, "{said}");
    assert!(said.contains(", 0 violations\n1 passed, 0 failed"), "{said}");
}

#[test]
fn a_worker_that_enters_without_the_lock_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (passed, said) = soak(&["--rogue", "rust", "--keep", &folder.path().display().to_string()]);
    assert!(!passed && said.contains("Overlap") && said.contains("0 passed, 1 failed"), "{said}");
}
