//! Who calls: a thread, a greenlet of one, or a task of an event loop. So a `Lock` that many share knows whose entry is
//! whose, and a wait knows what it keeps from running.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::aio;
use crate::hub;
use crate::port::Port;

/// Numbers for threads and event loops. No two share one, and none is used again.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(crate) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

struct Thread {
    number: u64,
    /// How many event loops of this thread have a port. With none, whoever calls is the thread itself.
    loops: Cell<u32>,
    /// Whether a hub of gevent or eventlet was seen here.
    greenlets: Cell<bool>,
}

thread_local! {
    static THREAD: Thread = Thread { number: number(), loops: Cell::new(0), greenlets: Cell::new(false) };
}

/// Who calls.
pub(crate) struct Who<'py> {
    /// What no other living thread, greenlet or task has.
    pub(crate) owner: usize,
    /// For [`dlock::Lease::set_tag`]: the event loop's number, else the thread's.
    pub(crate) tag: u64,
    /// The running task, and the port of its loop.
    pub(crate) task: Option<(Bound<'py, PyAny>, Port)>,
}

/// The number of the calling thread.
pub(crate) fn thread() -> u64 {
    THREAD.with(|thread| thread.number)
}

/// Notes that an event loop of this thread has got a port, or has lost it.
pub(crate) fn count_loop(more: bool) {
    THREAD.with(|thread| {
        let loops = thread.loops.get();
        thread.loops.set(if more { loops + 1 } else { loops.saturating_sub(1) });
    });
}

/// Notes that greenlets of this thread may wait at the same time.
pub(crate) fn greenlets() {
    THREAD.with(|thread| thread.greenlets.set(true));
}

/// Whoever makes a blocking call, as far as that can be told without asking Python: a thread whose event loop has made
/// no call yet passes for a thread without one.
pub(crate) fn caller(py: Python<'_>) -> PyResult<Who<'_>> {
    let (number, loops, greenlets) =
        THREAD.with(|thread| (thread.number, thread.loops.get() > 0, thread.greenlets.get()));
    if loops && let Some(who) = in_loop(py)? {
        return Ok(who);
    }
    let owner = if greenlets { greenlet(py)? } else { number as usize };
    Ok(Who { owner, tag: number, task: None })
}

/// As [`caller`], and asks Python.
pub(crate) fn exactly(py: Python<'_>) -> PyResult<Who<'_>> {
    match in_loop(py)? {
        Some(who) => Ok(who),
        None => {
            // Notes whether greenlets wait here.
            hub::here(py)?;
            caller(py)
        }
    }
}

/// Whoever awaits a call.
pub(crate) fn awaiter(py: Python<'_>) -> PyResult<Who<'_>> {
    // Asked for its error where there is no loop.
    let task = aio::current_task(py)?;
    match in_loop(py)? {
        Some(who) => Ok(who),
        None => Ok(Who { owner: task.as_ptr().addr(), tag: thread(), task: None }),
    }
}

fn in_loop(py: Python<'_>) -> PyResult<Option<Who<'_>>> {
    let Some(running) = aio::running_loop(py)? else { return Ok(None) };
    let (task, port) = (aio::current_task(py)?, Port::of(&running)?);
    let tag = port.number();
    // In a plain callback of the loop no task runs.
    Ok(Some(match task.is_none() {
        true => Who { owner: thread() as usize, tag, task: None },
        false => Who { owner: task.as_ptr().addr(), tag, task: Some((task, port)) },
    }))
}

fn greenlet(py: Python<'_>) -> PyResult<usize> {
    static CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(CURRENT.import(py, "greenlet", "getcurrent")?.call0()?.as_ptr().addr())
}
