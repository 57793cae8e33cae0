//! The queue of completions for one environment, and the end of that queue.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dlock::clock::Instant;
use dlock::runtime::lock;
use dlock::{Canceller, limits};
use napi::{Env, sys};

use super::LoopPort;

/// Work for the loop's thread. If it is dropped undone, it releases what it carries.
pub(super) type Done = Box<dyn FnOnce(&Rc<LoopPort>) + Send>;

/// The outboxes of all environments.
static OUTBOXES: Mutex<Vec<Weak<Outbox>>> = Mutex::new(Vec::new());

/// The place where threads of the core leave completions for one environment.
#[derive(Default)]
pub(super) struct Outbox(Mutex<Letters>);

#[derive(Default)]
struct Letters {
    /// The function that wakes the loop. `None`: the outbox is closed, and new completions are dropped.
    wake: Option<Wake>,
    done: Vec<Done>,
    running: HashMap<u64, Canceller>,
    calls: u64,
}

/// The environment's thread-safe function.
struct Wake(sys::napi_threadsafe_function);

// SAFETY: it is made to be called from any thread, and is only used under the outbox's mutex, before it is released.
unsafe impl Send for Wake {}

impl Outbox {
    /// Opens the outbox. From here on the outbox wakes the loop by this function, and releases the function at its end.
    pub(super) fn open(self: &Arc<Self>, wake: sys::napi_threadsafe_function) {
        lock(&self.0).wake = Some(Wake(wake));
        let mut outboxes = lock(&OUTBOXES);
        outboxes.retain(|outbox| outbox.strong_count() > 0);
        outboxes.push(Arc::downgrade(self));
    }

    /// Returns the number of calls that have begun.
    pub(super) fn begun(&self) -> u64 {
        lock(&self.0).calls
    }

    /// Registers a call that begins, and returns its number. Returns `None` if no call can begin any more.
    pub(super) fn begin(&self, canceller: Canceller) -> Option<u64> {
        let mut letters = lock(&self.0);
        letters.wake.as_ref()?;
        letters.calls += 1;
        let call = letters.calls;
        letters.running.insert(call, canceller);
        Some(call)
    }

    /// Queues work for the loop's thread. May be called from any thread.
    pub(super) fn post(&self, done: Done) {
        self.finish(None, done);
    }

    /// Queues work for the loop's thread, and ends the call of this number.
    pub(super) fn finish(&self, call: Option<u64>, done: Done) {
        let mut letters = lock(&self.0);
        if letters.wake.is_some() {
            letters.done.push(done);
        } else {
            drop(letters);
            // The work is dropped before the call counts as ended: a thread that waits for the call also waits for the
            // releases.
            drop(done);
            letters = lock(&self.0);
        }
        if let Some(call) = call {
            letters.running.remove(&call);
        }
        if let (1, Some(wake)) = (letters.done.len(), &letters.wake) {
            // SAFETY: not released yet, since it is still there and the mutex is held. It fails only at the
            // environment's end, which drops what is in the queue.
            unsafe { sys::napi_call_threadsafe_function(wake.0, null_mut(), NONBLOCKING) };
        }
    }

    /// Takes the work that is in the queue.
    pub(super) fn take(&self) -> Vec<Done> {
        std::mem::take(&mut lock(&self.0).done)
    }

    /// Sets whether the loop stays alive for later completions. May be called only on the environment's thread.
    pub(super) fn keep_alive(&self, env: Env, keep: bool) {
        let letters = lock(&self.0);
        let Some(wake) = &letters.wake else { return };
        // SAFETY: on the environment's thread, and not released while it is there.
        unsafe {
            if keep {
                sys::napi_ref_threadsafe_function(env.raw(), wake.0)
            } else {
                sys::napi_unref_threadsafe_function(env.raw(), wake.0)
            }
        };
    }

    pub(super) fn cancel(&self, call: u64) {
        let canceller = lock(&self.0).running.get(&call).cloned();
        if let Some(canceller) = canceller {
            canceller.cancel();
        }
    }

    /// Closes the outbox. From here on nothing reaches the environment: running calls are cancelled, and what they
    /// obtained is released. Returns false if the outbox had been closed before.
    pub(super) fn close(&self) -> bool {
        let mut letters = lock(&self.0);
        let Some(wake) = letters.wake.take() else { return false };
        // SAFETY: taken out under the mutex, so nobody uses it afterwards.
        unsafe { sys::napi_release_threadsafe_function(wake.0, sys::ThreadsafeFunctionReleaseMode::abort) };
        let done = std::mem::take(&mut letters.done);
        let running: Vec<_> = letters.running.values().cloned().collect();
        drop(letters);
        drop(done);
        running.iter().for_each(Canceller::cancel);
        true
    }

    /// Waits until no call is running any more.
    pub(super) fn quiet(&self, until: Instant) {
        while !lock(&self.0).running.is_empty() && !until.passed() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

const NONBLOCKING: sys::napi_threadsafe_function_call_mode = sys::ThreadsafeFunctionCallMode::nonblocking;

/// Cancels every call at the end of the process, and releases what is held. Waits for both, for a limited time.
pub(crate) fn shutdown() {
    let until = Instant::now().plus(limits::EXIT);
    let outboxes: Vec<_> = lock(&OUTBOXES).iter().filter_map(Weak::upgrade).collect();
    for outbox in &outboxes {
        outbox.close();
    }
    for outbox in &outboxes {
        outbox.quiet(until);
    }
    dlock::exit(until.left());
}
