//! Code of the user's: the pool of threads that runs it, and what becomes of its panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::event::{self, EventKind};
use crate::clock;
use crate::error::panic_text;
#[cfg(feature = "testing")]
use crate::runtime::simulated;
use crate::runtime::{self, Pool};

/// Runs code of the user's on the pool of threads that is kept for it, never on the thread that renews leases. A panic
/// is caught, and becomes an event.
pub fn pool(work: impl FnOnce() + Send + 'static) {
    pool_for("", "".into(), work);
}

/// As [`pool`], for this key.
pub(crate) fn pool_for(backend: &'static str, key: Arc<str>, work: impl FnOnce() + Send + 'static) {
    let work = move || guarded(backend, &key, work);
    #[cfg(feature = "testing")]
    if let Some(handle) = simulated::runtime() {
        drop(handle.spawn_blocking(work));
        return;
    }
    let pool = Pool::callbacks();
    if pool.run(work).is_err() {
        // The system has no thread for it now. The work is not lost.
        runtime::spawn(async {
            while pool.staffed().is_err() {
                clock::sleep(Duration::from_millis(100)).await;
            }
        });
    }
}

/// Calls code of the user's for this key. A panic becomes an event.
pub(crate) fn guarded(backend: &'static str, key: &Arc<str>, f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        event::emit(|| EventKind::Panicked { text: panic_text(&*panic).to_owned() }.of(backend, key));
    }
}
