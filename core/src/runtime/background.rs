//! The background: how work gets onto the runtime, and how it drains at exit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;

use super::executor::Executor;
use super::exit;
use super::fork::PerProcess;
#[cfg(feature = "testing")]
use super::simulated;
use crate::clock::Instant;
use crate::error::Result;

static EXECUTOR: PerProcess<&'static Executor> = PerProcess::new();

/// Work that must not be cut off by an orderly exit: releases under way.
static TRACKED: AtomicUsize = AtomicUsize::new(0);

fn executor() -> Result<&'static Executor> {
    EXECUTOR
        .try_get(|| {
            TRACKED.store(0, Ordering::Release);
            exit::start();
            Executor::start()
        })
        .copied()
}

/// Starts the runtime and its one thread, unless that has been done.
///
/// # Errors
/// `Backend`, temporary, when there is no thread or descriptor left for it. Nothing of the attempt is left behind.
/// `Backend`, for good, when the program has closed its descriptors.
pub(crate) fn started() -> Result<()> {
    #[cfg(feature = "testing")]
    if simulated::runtime().is_some() {
        return Ok(());
    }
    executor()?.whole()
}

/// The runtime's handle. Starts its one thread on first use.
///
/// # Errors
/// `Backend`, temporary, when there is no thread or descriptor left for it.
pub fn handle() -> Result<Handle> {
    #[cfg(feature = "testing")]
    if let Some(handle) = simulated::runtime() {
        return Ok(handle);
    }
    Ok(executor()?.runtime.handle().clone())
}

/// Returns true if this thread drives the runtime at this moment: what waits here waits for itself.
pub(crate) fn drives() -> bool {
    let Some(executor) = EXECUTOR.peek() else { return false };
    Handle::try_current().is_ok_and(|current| current.id() == executor.runtime.handle().id())
}

/// Runs this in the background. Whoever begins something that needs the background has made sure that the runtime runs.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    #[cfg(feature = "testing")]
    let work = simulated::within(work);
    if let Ok(handle) = handle() {
        handle.spawn(work);
    }
}

/// Runs a call in the background that somebody is to be told of. As [`spawn`].
pub(crate) fn spawn_call(work: impl Future<Output = ()> + Send + 'static) {
    #[cfg(feature = "testing")]
    if simulated::runtime().is_some() {
        return spawn(work);
    }
    if let Ok(executor) = executor() {
        executor.submit(work);
    }
}

/// Runs this in the background, and has [`drain`] wait for it.
pub(crate) fn spawn_tracked(work: impl Future<Output = ()> + Send + 'static) {
    spawn_call(tracked(work));
}

/// Makes [`drain`] wait for this, whoever runs it.
pub(crate) fn tracked<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    struct Tracked;
    impl Drop for Tracked {
        fn drop(&mut self) {
            TRACKED.fetch_sub(1, Ordering::AcqRel);
        }
    }
    TRACKED.fetch_add(1, Ordering::AcqRel);
    let tracked = Tracked;
    async move {
        let _tracked = tracked;
        work.await
    }
}

/// Drives this on the calling thread, which must not be one of an asynchronous runtime.
///
/// # Errors
/// As [`started`].
pub(crate) fn block_on<F: Future>(work: F) -> Result<F::Output> {
    #[cfg(feature = "testing")]
    if let Some(handle) = simulated::runtime() {
        return Ok(handle.block_on(work));
    }
    let executor = executor()?;
    executor.whole()?;
    Ok(executor.block_on(work))
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
    drain_until(Instant::now().plus(limit))
}

/// Returns true if anything was ever run in the background.
pub(crate) fn ran() -> bool {
    EXECUTOR.peek().is_some()
}

/// Waits until the releases under way are done, and once the end has begun also until no acquire stands anywhere.
/// False: the limit came first.
pub(crate) fn drain_until(end: Instant) -> bool {
    let left = || TRACKED.load(Ordering::Acquire) > 0 || exit::is_ending() && exit::is_contending();
    while ran() && left() {
        if end.passed() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
