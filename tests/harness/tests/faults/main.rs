//! What every backend with a server promises when replies are lost, networks part, servers stop and processes die. Each
//! scenario is written once, and is a test for each backend: `outage::an_acquire_…_fails_with_an_outage::etcd`.

#![allow(clippy::print_stdout, reason = "measurements")]

/// Makes a test of each scenario of a file for each backend with a server, in a module of the scenario's name. A
/// scenario is a function that gets the backend. What it needs beside a server follows `needs`.
macro_rules! scenarios {
    ($($scenario:ident $(needs $fault:ident)?;)*) => {
        /// The scenarios of this file, and the faults that they need.
        pub(crate) const ALL: &[crate::skips::Scenario] = &[$((
            concat!(module_path!(), "::", stringify!($scenario)),
            &[dlock_harness::backends::Fault::Server $(, dlock_harness::backends::Fault::$fault)?],
        ),)*];

        $(mod $scenario { dlock_harness::with_backends!(tests $scenario); })*
    };
}

/// Makes a test for each backend with a server.
macro_rules! tests {
    ({$($local:ident)*} {$($remote:ident)*} $scenario:ident) => {
        $(#[test]
        fn $remote() {
            let name = concat!("::", stringify!($scenario));
            let scenario = super::ALL.iter().find(|(known, _)| known.ends_with(name)).expect("it is in the list");
            crate::skips::play(&dlock_harness::backends::$remote::Backend, scenario, super::$scenario);
        })*
    };
}

mod access;
mod common;
mod exit;
mod late;
mod lost;
mod mutants;
mod outage;
mod partition;
mod process;
mod queue;
mod replies;
mod skips;
mod waiting;
