//! Where completions gather for one environment, and what becomes of them at its end.

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

/// What is to be done on the loop's thread. Dropped undone, it gives back what it carries.
pub(super) type Done = Box<dyn FnOnce(&Rc<LoopPort>) + Send>;

/// Every environment's outbox.
static OUTBOXES: Mutex<Vec<Weak<Outbox>>> = Mutex::new(Vec::new());

/// Where threads of the core leave completions for one environment.
#[derive(Default)]
pub(super) struct Outbox(Mutex<Letters>);

#[derive(Default)]
struct Letters {
    /// Wakes the loop. `None`: closed, and what comes is dropped.
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
    /// From here on it wakes the loop by this function, which it releases.
    pub(super) fn open(self: &Arc<Self>, wake: sys::napi_threadsafe_function) {
        lock(&self.0).wake = Some(Wake(wake));
        let mut outboxes = lock(&OUTBOXES);
        outboxes.retain(|outbox| outbox.strong_count() > 0);
        outboxes.push(Arc::downgrade(self));
    }

    /// How many calls have begun.
    pub(super) fn begun(&self) -> u64 {
        lock(&self.0).calls
    }

    /// Notes a call that begins; gives its number. `None`: nothing begins any more.
    pub(super) fn begin(&self, canceller: Canceller) -> Option<u64> {
        let mut letters = lock(&self.0);
        letters.wake.as_ref()?;
        letters.calls += 1;
        let call = letters.calls;
        letters.running.insert(call, canceller);
        Some(call)
    }

    /// Has this done on the loop's thread. From any thread.
    pub(super) fn post(&self, done: Done) {
        self.finish(None, done);
    }

    /// The same, for the end of a call.
    pub(super) fn finish(&self, call: Option<u64>, done: Done) {
        let mut letters = lock(&self.0);
        if letters.wake.is_some() {
            letters.done.push(done);
        } else {
            drop(letters);
            // Before the call counts as ended: whoever waits for that waits for what it gives back.
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

    /// What is to be done now.
    pub(super) fn take(&self) -> Vec<Done> {
        std::mem::take(&mut lock(&self.0).done)
    }

    /// Has the loop stay alive for what may come, or not. On the environment's thread.
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

    /// From here on nothing reaches the environment: what runs is cancelled, and what it obtains given back. False: that
    /// was done before.
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

    /// Waits until no call is under way any more.
    pub(super) fn quiet(&self, until: Instant) {
        while !lock(&self.0).running.is_empty() && !until.passed() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

const NONBLOCKING: sys::napi_threadsafe_function_call_mode = sys::ThreadsafeFunctionCallMode::nonblocking;

/// For the end of the process: cancels every call, gives back what is held, and waits for that as long as it may.
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
