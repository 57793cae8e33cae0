//! Each deliberate defect that a scenario of this folder is there for is caught by it. `mutants.txt` of a backend's folder
//! says which scenario that is.

use dlock::mutant::MUTANTS;
use dlock_harness::backends::TestBackend;
use dlock_harness::mutants::all_are_caught;

macro_rules! backends {
    ({$($local:ident)*} {$($remote:ident)*}) => {
        mod every_defect_is_caught {
            $(#[test]
            fn $remote() {
                let backend = &dlock_harness::backends::$remote::Backend as &dyn super::TestBackend;
                // A driver has one list for all its modes.
                if backend.name() == backend.driver() {
                    super::all_are_caught(super::MUTANTS, backend.driver(), super::PROGRAM);
                }
            })*
        }
    };
}

/// What the names of these scenarios begin with.
const PROGRAM: &str = "faults";

dlock_harness::with_backends!(backends);
