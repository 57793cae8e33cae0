//! Threads for what may block for as long as it likes: code of the user's, and name resolution. Each kind has a pool of
//! its own, so that one that is full of blocked work stops nothing else.

use std::collections::VecDeque;
use std::io::Result;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::fork::PerProcess;
use super::lock::lock;
use super::threads;

/// The most threads that a pool has. Further work waits for one of them.
const THREADS: usize = 64;
/// For how long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// One pool. Its threads are started as there is work for them.
pub(crate) struct Pool {
    name: &'static str,
    state: Mutex<State>,
    come: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Pool {
    /// The pool for code of the user's.
    pub(crate) fn callbacks() -> &'static Self {
        static CALLBACKS: PerProcess<Pool> = PerProcess::new();
        CALLBACKS.get(|| Self::new("dlock-pool"))
    }

    /// One whose threads have this name.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, state: Mutex::default(), come: Condvar::new() }
    }

    /// Runs this on a thread of the pool, in the order of arrival.
    ///
    /// # Errors
    /// Those of the system, when the pool has no thread and none can be started. The work waits for one.
    pub(crate) fn run(&'static self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        lock(&self.state).queue.push_back(Box::new(work));
        self.staffed()
    }

    /// Sees to it that there is a thread for the work that waits.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn staffed(&'static self) -> Result<()> {
        let mut state = lock(&self.state);
        if state.idle >= state.queue.len() {
            self.come.notify_one();
            return Ok(());
        }
        if state.threads == THREADS {
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let started = threads::start(self.name, || self.work());
        if let Err(error) = started {
            let mut state = lock(&self.state);
            state.threads -= 1;
            if state.threads == 0 {
                return Err(error);
            }
        }
        Ok(())
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                // A panic is its owner's to report: the thread goes on.
                let _ = catch_unwind(AssertUnwindSafe(work));
                state = lock(&self.state);
                continue;
            }
            state.idle += 1;
            let (woken, waited) = self.come.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}
