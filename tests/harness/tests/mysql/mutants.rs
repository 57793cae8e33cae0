//! Each deliberate defect is caught by the scenario that is there for it: `mutants.txt` says which.

use dlock::mutant::MUTANTS;
use dlock_harness::mutants::all_are_caught;

#[test]
fn every_defect_is_caught() {
    all_are_caught(MUTANTS, "mysql", "mysql");
}
