//! Who calls: a thread, a greenlet of one, or a task of an event loop. So a `Lock` that many share knows whose entry is
//! whose, and a wait knows what it keeps from running.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::aio;
use crate::hub;
use crate::port::LoopPort;

/// Numbers for threads and event loops. No two share one, and none is used again.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub(crate) fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

struct Thread {
    /// 0: not given yet.
    number: Cell<u64>,
    /// How many event loops of this thread have a port. With none, whoever calls is the thread itself.
    loops: Cell<u32>,
    /// Whether a hub of gevent or eventlet was seen here.
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

/// Who calls.
pub(crate) struct Who<'py> {
    /// What no other living thread, greenlet or task has.
    pub(crate) owner: usize,
    /// For [`dlock::Lease::set_user_data`]: the event loop's number, else the thread's.
    pub(crate) tag: u64,
    /// The running task, and the port of its loop.
    pub(crate) task: Option<(Bound<'py, PyAny>, LoopPort)>,
}

/// The number of the calling thread.
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

/// The calling thread's number, where nobody but the thread itself calls. Asks Python nothing, so a thread whose event
/// loop has made no call yet passes for one without a loop.
pub(crate) fn plain() -> Option<u64> {
    THREAD.with(|thread| (thread.loops.get() == 0 && !thread.greenlets.get()).then(|| thread.number()))
}

/// Whoever makes a blocking call.
pub(crate) fn caller(py: Python<'_>) -> PyResult<Who<'_>> {
    if let Some(who) = in_loop(py)? {
        return Ok(who);
    }
    // Notes whether greenlets wait here.
    hub::here(py)?;
    Ok(Who { owner: thread_or_greenlet(py)?, tag: thread(), task: None })
}

/// The owner of what whoever makes a blocking call has taken.
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

/// Whoever awaits a call.
pub(crate) fn awaiter(py: Python<'_>) -> PyResult<Who<'_>> {
    match in_loop(py)? {
        Some(who) => Ok(who),
        // Asked for its error.
        None => Ok(Who { owner: awaiting(py)?, tag: thread(), task: None }),
    }
}

/// The owner of what whoever awaits a call has taken.
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
