//! Each deliberate defect of the backend is caught by the scenario that is there for it.

use std::process::Command;
use std::time::Instant;

use dlock::mutant::MUTANTS;

/// Which scenario fails under which defect.
const CAUGHT: &[(&str, &str)] = &[
    ("etcd-own-key-not-checked", "waiting::a_waiter_whose_key_was_deleted_is_not_granted_with_the_next"),
    ("etcd-ended-lease-kept", "taken::a_longer_ttl_is_granted_though_its_lease_had_ended"),
    ("etcd-deletes-by-name", "late::a_late_release_deletes_nothing_of_the_next"),
    ("etcd-listens-after-reading", "waiting::a_release_between_reading_and_listening_is_heard"),
    ("etcd-unsettled-forgotten", "late::a_late_put_locks_nobody_out"),
    ("etcd-release-forgets-doubt", "late::a_release_whose_reply_is_lost_is_released"),
    ("loss-ignored", "taken::a_deleted_key_is_a_loss_at_the_next_renewal"),
];

/// Whether the scenario fails under the defect, and how it says so.
fn caught(mutant: &str, scenario: &str) -> Result<String, String> {
    let begun = Instant::now();
    let mut line = Command::new(std::env::current_exe().unwrap());
    let done = line.args(["--exact", scenario]).env("DLOCK_MUTANT", mutant).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    if !said.contains("running 1 test") {
        return Err(format!("there is no scenario {scenario}"));
    }
    if done.status.success() {
        return Err(format!("{mutant} survives {scenario}"));
    }
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    Ok(format!("{:>5.1} s  {}", begun.elapsed().as_secs_f64(), lines.next().unwrap_or("it was killed")))
}

#[test]
fn every_defect_is_caught() {
    let missing: Vec<_> = MUTANTS.iter().map(|(name, _)| *name).filter(|name| name.starts_with("etcd-")).collect();
    let missing: Vec<_> = missing.iter().filter(|name| !CAUGHT.iter().any(|(known, _)| known == *name)).collect();
    assert!(missing.is_empty(), "no scenario for {missing:?}");
    let mut survivors = Vec::new();
    for (mutant, scenario) in CAUGHT {
        match caught(mutant, scenario) {
            Ok(how) => println!("{mutant:28} {scenario:76} {how}"),
            Err(why) => survivors.push(why),
        }
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
}
