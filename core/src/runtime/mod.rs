//! The only runtime: when it starts, what a fork does to it, how work gets onto it and how it drains at exit.
//!
//! A forked child has none of its parent's threads. Everything that belongs to one process therefore lives in a
//! [`PerProcess`] slot: the child sees an empty slot and makes its own; what the parent had is leaked, never dropped,
//! since dropping it would wait for threads that don't exist.

#![allow(unsafe_code)]

#[cfg(unix)]
pub(crate) mod descriptors;
mod engine;
pub(crate) mod exit;
mod pool;
pub(crate) mod threads;

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use engine::Engine;
pub(crate) use pool::Pool;
use tokio::runtime::Handle;

use crate::clock;
use crate::error::Result;

static EPOCH: AtomicU32 = AtomicU32::new(1);

/// Counts the forks that led to this process: what was made in another epoch belongs to another process.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Acquire)
}

/// A value each process makes for itself, on first use. It is never dropped, not even with its slot.
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    slot: AtomicPtr<Stamped<T>>,
}

struct Stamped<T> {
    epoch: u32,
    value: OnceLock<T>,
    /// Who makes a value that may fail.
    making: Mutex<()>,
}

impl<T> PerProcess<T> {
    /// An empty slot.
    #[allow(clippy::new_without_default, reason = "a const constructor for statics")]
    pub const fn new() -> Self {
        Self { slot: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// This process's value, made now if there is none.
    pub fn get(&self, make: impl FnOnce() -> T) -> &'static T {
        self.stamped().value.get_or_init(make)
    }

    /// This process's value, made now if there is none. What fails leaves the slot empty, for the next one to try again.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_get(&self, make: impl FnOnce() -> Result<T>) -> Result<&'static T> {
        let stamped = self.stamped();
        if let Some(value) = stamped.value.get() {
            return Ok(value);
        }
        let _making = locked(&stamped.making);
        match stamped.value.get() {
            Some(value) => Ok(value),
            None => make().map(|value| stamped.value.get_or_init(|| value)),
        }
    }

    /// This process's value, if it was made.
    pub fn peek(&self) -> Option<&'static T> {
        // SAFETY: a non-null pointer came from `Box::into_raw` in `stamped` and is never freed.
        let stamped = unsafe { self.slot.load(Ordering::Acquire).as_ref() }?;
        if stamped.epoch == epoch() { stamped.value.get() } else { None }
    }

    fn stamped(&self) -> &'static Stamped<T> {
        watch_forks();
        loop {
            let seen = self.slot.load(Ordering::Acquire);
            // SAFETY: as in `peek`.
            if let Some(stamped) = unsafe { seen.as_ref() }
                && stamped.epoch == epoch()
            {
                return stamped;
            }
            let fresh =
                Box::into_raw(Box::new(Stamped { epoch: epoch(), value: OnceLock::new(), making: Mutex::new(()) }));
            match self.slot.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: just made by `Box::into_raw`, and never freed once it is in the slot.
                Ok(_) => return unsafe { &*fresh },
                // SAFETY: it never got into the slot, so nobody else has it.
                Err(_) => drop(unsafe { Box::from_raw(fresh) }),
            }
        }
    }
}

/// What a mutex protects, also after a panic of whoever had it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static ENGINE: PerProcess<&'static Engine> = PerProcess::new();

/// Work that must not be cut off by an orderly exit: releases under way.
static PENDING: AtomicUsize = AtomicUsize::new(0);

fn engine() -> Result<&'static Engine> {
    ENGINE
        .try_get(|| {
            exit::start();
            Engine::start()
        })
        .copied()
}

/// Starts the runtime and its one thread, unless that has been done.
///
/// # Errors
/// `Backend`, temporary, when there is no thread or descriptor left for it. Nothing of the attempt is left behind. `Backend`,
/// for good, when the program has closed its descriptors.
pub(crate) fn started() -> Result<()> {
    #[cfg(feature = "testing")]
    if crate::testing::runtime().is_some() {
        return Ok(());
    }
    engine()?.whole()
}

/// The runtime's handle. Starts its one thread on first use.
///
/// # Errors
/// `Backend`, temporary, when there is no thread or descriptor left for it.
pub fn handle() -> Result<Handle> {
    #[cfg(feature = "testing")]
    if let Some(handle) = crate::testing::runtime() {
        return Ok(handle);
    }
    Ok(engine()?.runtime.handle().clone())
}

/// Whether this thread drives the runtime at this moment: what waits here waits for itself.
pub(crate) fn drives() -> bool {
    let Some(engine) = ENGINE.peek() else { return false };
    Handle::try_current().is_ok_and(|current| current.id() == engine.runtime.handle().id())
}

/// Runs this in the background. Whoever begins something that needs the background has made sure that the runtime runs.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    #[cfg(feature = "testing")]
    let work = crate::testing::within(work);
    if let Ok(handle) = handle() {
        handle.spawn(work);
    }
}

/// Runs a call in the background that somebody is to be told of. As [`spawn`].
pub(crate) fn spawn_call(work: impl Future<Output = ()> + Send + 'static) {
    #[cfg(feature = "testing")]
    if crate::testing::runtime().is_some() {
        return spawn(work);
    }
    if let Ok(engine) = engine() {
        engine.submit(work);
    }
}

/// Runs this in the background, and has [`drain`] wait for it.
pub(crate) fn spawn_pending(work: impl Future<Output = ()> + Send + 'static) {
    spawn_call(pending(work));
}

/// Has [`drain`] wait for this, whoever runs it.
pub(crate) fn pending<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    struct Pending;
    impl Drop for Pending {
        fn drop(&mut self) {
            PENDING.fetch_sub(1, Ordering::AcqRel);
        }
    }
    PENDING.fetch_add(1, Ordering::AcqRel);
    let pending = Pending;
    async move {
        let _pending = pending;
        work.await
    }
}

/// Runs code of the user's on the pool of threads kept for it: never on the thread that renews leases. A panic there is
/// caught, and told as an event.
pub fn pool(work: impl FnOnce() + Send + 'static) {
    static CALLBACKS: PerProcess<Pool> = PerProcess::new();
    #[cfg(feature = "testing")]
    if let Some(handle) = crate::testing::runtime() {
        drop(handle.spawn_blocking(work));
        return;
    }
    let pool = CALLBACKS.get(|| Pool::new("dlock-pool"));
    if pool.run(work).is_err() {
        // No thread to be had, and none there that would come to it: it is not lost for that.
        spawn(async {
            while pool.staffed().is_err() {
                clock::sleep(Duration::from_millis(100)).await;
            }
        });
    }
}

/// Drives this on the calling thread, which must not be one of an asynchronous runtime.
///
/// # Errors
/// As [`started`].
pub(crate) fn block_on<F: Future>(work: F) -> Result<F::Output> {
    #[cfg(feature = "testing")]
    if let Some(handle) = crate::testing::runtime() {
        return Ok(handle.block_on(work));
    }
    let engine = engine()?;
    engine.whole()?;
    Ok(engine.block_on(work))
}

/// Polls this once on the calling thread, within the runtime, and drives nothing.
///
/// # Errors
/// As [`started`].
pub(crate) fn poll_once<F: Future>(work: F) -> Result<Option<F::Output>> {
    started()?;
    let handle = handle()?;
    let _within = handle.enter();
    match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Ok(Some(result)),
        Poll::Pending => Ok(None),
    }
}

/// Waits until the releases under way are done, for an orderly exit. False: the limit came first.
pub fn drain(limit: Duration) -> bool {
    exit::drain_until(clock::Instant::now().plus(limit))
}

/// Has forks noticed from now on. Called by everything that makes something a child must not share.
#[cfg(unix)]
pub fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are `extern "C"` functions without captures that never unwind; `child` does only what
        // is allowed between fork and exec in a multi-threaded program: atomics and close(2).
        unsafe { libc::pthread_atfork(Some(fork::prepare), Some(fork::parent), Some(fork::child)) };
    });
}

/// There is no fork here.
#[cfg(not(unix))]
pub fn watch_forks() {
    let _: &Once;
}

#[cfg(unix)]
mod fork {
    use super::{EPOCH, Ordering};

    pub(super) extern "C" fn prepare() {
        super::descriptors::freeze();
    }

    pub(super) extern "C" fn parent() {
        super::descriptors::thaw();
    }

    pub(super) extern "C" fn child() {
        EPOCH.fetch_add(1, Ordering::AcqRel);
        super::descriptors::close_all();
        super::descriptors::thaw();
    }
}
