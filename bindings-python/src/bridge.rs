//! The bridge from running calls to the interpreter: the wait of a thread, which releases the GIL and reacts to
//! signals; and the user's code that runs on the core's pool, until the interpreter ends.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dlock::{Op, limits, runtime};
use pyo3::prelude::*;

use crate::error::raised;
use crate::hub;

/// The time from one check for signals to the next, in a main thread that waits.
const SLICE: Duration = Duration::from_millis(50);

/// Waits for a call while other threads may use the interpreter. Ctrl-C ends the wait, like any other exception of a
/// signal handler.
pub(crate) fn wait<T: Send + 'static>(py: Python<'_>, op: Op<T>) -> PyResult<T> {
    waited(py, op, Duration::MAX, |_| Ok(()))
}

/// Waits like [`wait`], but gives up with the error of `refuse`, which is called again and again.
pub(crate) fn wait_unless<T: Send + 'static>(
    py: Python<'_>,
    op: Op<T>,
    refuse: impl Fn(Python<'_>) -> PyResult<()>,
) -> PyResult<T> {
    waited(py, op, SLICE, refuse)
}

fn waited<T: Send + 'static>(
    py: Python<'_>,
    mut op: Op<T>,
    slice: Duration,
    refuse: impl Fn(Python<'_>) -> PyResult<()>,
) -> PyResult<T> {
    if let Some(result) = op.settled() {
        return result.map_err(|error| raised(py, &error));
    }
    refuse(py)?;
    if let Some(hub) = hub::here(py)? {
        return hub::wait(&hub, op);
    }
    // Python runs signal handlers on its main thread only. So other threads needn't wake up for signals.
    let slice = if on_main_thread() { SLICE } else { slice };
    loop {
        if let Some(result) = py.detach(|| op.wait_for(slice)) {
            return result.map_err(|error| raised(py, &error));
        }
        if let Err(interrupt) = py.check_signals().and_then(|()| refuse(py)) {
            op.cancel();
            let mut left = limits::WITHDRAWAL + SLICE;
            while py.detach(|| op.wait_for(SLICE)).is_none() && !left.is_zero() {
                left = left.saturating_sub(SLICE);
                if py.check_signals().is_err() {
                    break;
                }
            }
            return Err(interrupt);
        }
    }
}

#[cfg(target_os = "linux")]
fn on_main_thread() -> bool {
    thread_local! {
        /// The process that was checked, and the result. A fork makes the thread that forks the main thread.
        static KNOWN: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    }
    let epoch = runtime::epoch();
    let (asked, known) = KNOWN.get();
    if asked == epoch {
        return known;
    }
    let is_main = rustix::thread::gettid() == rustix::process::getpid();
    KNOWN.set((epoch, is_main));
    is_main
}

#[cfg(not(target_os = "linux"))]
fn on_main_thread() -> bool {
    true
}

/// The bit in `GATE` that is set once no code of the user's may begin any more. The bits below it count the code that
/// runs.
const SHUT: usize = 1 << (usize::BITS - 1);
static GATE: AtomicUsize = AtomicUsize::new(0);

/// Runs work that may call code of the user's where Python doesn't expect it, unless the interpreter is ending. An exit
/// waits for such work. Python before 3.14 ends its other threads by unwinding their stacks, which aborts in frames of
/// Rust.
pub(crate) fn inside(work: impl FnOnce()) {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            GATE.fetch_sub(1, Ordering::AcqRel);
        }
    }
    let before = GATE.fetch_add(1, Ordering::AcqRel);
    let inside = Inside;
    if before & SHUT == 0 {
        work();
    }
    drop(inside);
}

/// Runs work that may call code of the user's while an object is collected. An exception that is set there stays as it
/// is.
pub(crate) fn aside(work: impl FnOnce(Python<'_>)) {
    inside(|| {
        Python::try_attach(|py| {
            let before = PyErr::take(py);
            work(py);
            if let Some(before) = before {
                before.restore(py);
            }
        });
    });
}

/// Runs code of the user's on the core's pool, unless the interpreter is ending.
pub(crate) fn pool(work: impl FnOnce(Python<'_>) + Send + 'static) {
    dlock::callbacks::pool(|| inside(|| Python::attach(work)));
}

/// Releases what is held, at exit, and keeps dlock's threads out of an interpreter that ends. Threads that wait for a
/// lock stay where they are: to return they would have to enter the interpreter.
#[pyfunction]
pub(crate) fn _shutdown(py: Python<'_>) {
    py.detach(|| {
        dlock::exit(limits::EXIT);
        GATE.fetch_or(SHUT, Ordering::AcqRel);
        for _ in 0..limits::EXIT.as_millis() {
            if GATE.load(Ordering::Acquire) & !SHUT == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
