//! Each deliberate defect of the backend is caught by the scenario that is there for it.

use dlock::mutant::MUTANTS;
use dlock_harness::mutants::all_are_caught;

/// Which scenario fails under which defect.
const CAUGHT: &[(&str, &str)] = &[
    ("file-counter-not-looked-at", "counter::a_counter_that_another_has_made_anew_is_seen"),
    ("file-counter-forgotten", "counter::a_clock_that_is_set_back_sets_no_fence_back"),
];

#[test]
fn every_defect_is_caught() {
    all_are_caught(MUTANTS, "file-", CAUGHT);
}
