//! What tests replace: the runtime, the clock, and, by name, one piece of correct behaviour with a deliberate defect.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};

use crate::backend::{Alarm, Backend};
use crate::client::Client;
use crate::clock::virtual_time;
use crate::config::Config;
use crate::error::Result;

thread_local! {
    static RUNTIME: RefCell<Option<Handle>> = const { RefCell::new(None) };
    static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Every deliberate defect of this build, and what it breaks.
pub const MUTANTS: &[(&str, &str)] = &[
    (
        "validity-from-receipt",
        "a lease counts from the reply, not from the request",
    ),
    ("never-expires", "a lease is not compared with the clock"),
    ("never-lost", "a loss is not told before the lease ends"),
    ("loss-ignored", "the backend's word that a lease is gone is not heard"),
    ("late-grant-entered", "a grant that was over when it came is handed out"),
    (
        "no-withdrawal",
        "an acquire that ended otherwise leaves its place and its grant behind",
    ),
];

/// Runs this in virtual time, on this thread alone, with everything random drawn from the seed: the same seed gives the
/// same run.
pub fn simulate<T>(seed: u64, mutant: Option<&'static str>, work: impl Future<Output = T>) -> T {
    struct Real;
    impl Drop for Real {
        fn drop(&mut self) {
            virtual_time::end();
            RUNTIME.set(None);
            MUTANT.set(None);
        }
    }
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of the calling thread");
    let _real = Real;
    RUNTIME.set(Some(runtime.handle().clone()));
    MUTANT.set(mutant);
    fastrand::seed(seed);
    runtime.block_on(async {
        virtual_time::begin();
        work.await
    })
}

/// A client of a backend of the test's, with a gate, watchdog and runtime like any other: one simulated process.
///
/// # Errors
/// Those of making the backend.
pub fn client(config: Config, make: impl FnOnce(Alarm) -> Result<Arc<dyn Backend>>) -> Result<Client> {
    Client::apart(config, make)
}

pub(crate) fn runtime() -> Option<Handle> {
    RUNTIME.with_borrow(Clone::clone)
}

pub(crate) fn mutant_is(name: &str) -> bool {
    MUTANT.get() == Some(name)
}
