//! The caller: a thread, a greenlet of a thread, or a task of an event loop. So a `Lock` that many callers share knows
//! the owner of each entry, and a wait knows which callers it blocks.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::aio;
use crate::hub;
use crate::port::LoopPort;

/// The next number for a thread or an event loop. No two share one, and none is used again.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(crate) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

struct Thread {
    /// The number of the thread. 0: none yet.
    number: Cell<u64>,
    /// The number of this thread's event loops that have a port. With none, the caller is the thread itself.
    loops: Cell<u32>,
    /// True if a hub of gevent or eventlet was seen here.
    greenlets: Cell<bool>,
}

thread_local! {
    static THREAD: Thread = const { Thread { number: Cell::new(0), loops: Cell::new(0), greenlets: Cell::new(false) } };
}

impl Thread {
    fn number(&self) -> u64 {
        if self.number.get() == 0 {
            self.number.set(number());
        }
        self.number.get()
    }
}

/// The caller of a function.
pub(crate) struct Who<'py> {
    /// The number of the caller. No other living thread, greenlet or task has it.
    pub(crate) owner: usize,
    /// The number for [`dlock::Lease::set_user_data`]: the event loop's, or else the thread's.
    pub(crate) tag: u64,
    /// The running task, and the port of its loop.
    pub(crate) task: Option<(Bound<'py, PyAny>, LoopPort)>,
}

/// Returns the number of the calling thread.
pub(crate) fn thread() -> u64 {
    THREAD.with(Thread::number)
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

/// Returns the number of the calling thread, if only the thread itself can be the caller. Asks Python nothing. So a
/// thread whose event loop has made no call yet counts as a thread without a loop.
pub(crate) fn plain() -> Option<u64> {
    THREAD.with(|thread| (thread.loops.get() == 0 && !thread.greenlets.get()).then(|| thread.number()))
}

/// Returns the caller of a blocking call.
pub(crate) fn caller(py: Python<'_>) -> PyResult<Who<'_>> {
    if let Some(who) = in_loop(py)? {
        return Ok(who);
    }
    // This call notes whether greenlets wait in this thread.
    hub::here(py)?;
    Ok(Who { owner: thread_or_greenlet(py)?, tag: thread(), task: None })
}

/// Returns the number of the caller of a blocking call, as in [`Who::owner`].
pub(crate) fn owner(py: Python<'_>) -> PyResult<usize> {
    if let Some(number) = plain() {
        return Ok(number as usize);
    }
    let task = aio::running_loop(py)?.map(|running| aio::task_of(&running)).transpose()?;
    match task.filter(|task| !task.is_none()) {
        Some(task) => Ok(task.as_ptr().addr()),
        None => thread_or_greenlet(py),
    }
}

/// Returns the caller that awaits a call.
pub(crate) fn awaiter(py: Python<'_>) -> PyResult<Who<'_>> {
    match in_loop(py)? {
        Some(who) => Ok(who),
        // `awaiting` returns the error.
        None => Ok(Who { owner: awaiting(py)?, tag: thread(), task: None }),
    }
}

/// Returns the number of the task that awaits a call, as in [`Who::owner`].
pub(crate) fn awaiting(py: Python<'_>) -> PyResult<usize> {
    Ok(aio::current_task(py)?.as_ptr().addr())
}

fn in_loop(py: Python<'_>) -> PyResult<Option<Who<'_>>> {
    let Some(running) = aio::running_loop(py)? else { return Ok(None) };
    let (task, port) = (aio::task_of(&running)?, LoopPort::of(&running)?);
    let tag = port.number();
    // In a plain callback of the loop no task runs.
    Ok(Some(match task.is_none() {
        true => Who { owner: thread() as usize, tag, task: None },
        false => Who { owner: task.as_ptr().addr(), tag, task: Some((task, port)) },
    }))
}

fn thread_or_greenlet(py: Python<'_>) -> PyResult<usize> {
    let (number, greenlets) = THREAD.with(|thread| (thread.number(), thread.greenlets.get()));
    if greenlets { greenlet(py) } else { Ok(number as usize) }
}

fn greenlet(py: Python<'_>) -> PyResult<usize> {
    static CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(CURRENT.import(py, "greenlet", "getcurrent")?.call0()?.as_ptr().addr())
}
