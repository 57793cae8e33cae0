//! Calls that asyncio awaits. A coroutine ends at once if there is nothing to wait for. Otherwise it waits for a future
//! that the loop's own thread settles. Threads of the core never enter the interpreter for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dlock::runtime::lock;
use dlock::{Canceller, Op};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::error::raised;
use crate::port::LoopPort;

/// Returns the running loop, if this thread has one.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    // asyncio isn't imported for programs that don't use it.
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || py.import("sys")?.getattr("modules").map(Bound::unbind))?;
    if !modules.bind(py).contains(intern!(py, "asyncio.events"))? {
        return Ok(None);
    }
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let running = RUNNING.import(py, "asyncio.events", "_get_running_loop")?.call0()?;
    Ok((!running.is_none()).then_some(running))
}

static CURRENT_TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Returns the running task.
pub(crate) fn current_task(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    CURRENT_TASK.import(py, "asyncio.tasks", "current_task")?.call0()
}

/// Returns the running task of the running loop.
pub(crate) fn task_of<'py>(running: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    CURRENT_TASK.import(running.py(), "asyncio.tasks", "current_task")?.call1((running,))
}

/// The outcome of a call: its result at once, or a coroutine that waits for the loop.
pub(crate) enum Outcome {
    Done(Py<PyAny>),
    Later(Py<PyAny>),
}

type Begin = Box<dyn FnOnce(Python<'_>) -> PyResult<Outcome> + Send + Sync>;

/// A coroutine of dlock. It begins when it is awaited, and ends at once if there is nothing to wait for.
#[pyclass(frozen, module = "dlock._dlock", name = "coroutine")]
pub(crate) struct Coroutine(Mutex<Stage>);

enum Stage {
    Fresh(Begin),
    /// The coroutine of the Python half that waits for the result.
    Waiting(Py<PyAny>),
    Over,
}

impl Coroutine {
    pub(crate) fn new(begin: impl FnOnce(Python<'_>) -> PyResult<Outcome> + Send + Sync + 'static) -> Self {
        Self(Mutex::new(Stage::Fresh(Box::new(begin))))
    }

    fn take(&self) -> Stage {
        std::mem::replace(&mut *lock(&self.0), Stage::Over)
    }

    /// Passes on the result of one step of the waiting coroutine. The coroutine goes on waiting if it yielded.
    fn step(&self, waiting: Py<PyAny>, step: PyResult<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        if step.is_ok() {
            *lock(&self.0) = Stage::Waiting(waiting);
        }
        step
    }
}

#[pymethods]
impl Coroutine {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.send(py, py.None())
    }

    fn send(&self, py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let waiting = match self.take() {
            Stage::Fresh(begin) => match begin(py)? {
                Outcome::Done(value) => return Err(PyStopIteration::new_err((value,))),
                Outcome::Later(waiting) => waiting,
            },
            Stage::Waiting(waiting) => waiting,
            Stage::Over => return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        };
        let step = waiting.call_method1(py, "send", (value,));
        self.step(waiting, step)
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: Bound<'_, PyAny>,
        value: Option<Py<PyAny>>,
        traceback: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        match self.take() {
            Stage::Waiting(waiting) => {
                let step = match (value, traceback) {
                    (None, None) => waiting.call_method1(py, "throw", (kind,)),
                    (value, traceback) => waiting.call_method1(py, "throw", (kind, value, traceback)),
                };
                self.step(waiting, step)
            }
            // The coroutine was cancelled before its first step, so nothing was begun.
            _ => Err(match value {
                Some(value) if !value.is_none(py) => PyErr::from_value(value.into_bound(py)),
                _ if kind.is_instance_of::<PyType>() => PyErr::from_value(kind.call0()?),
                _ => PyErr::from_value(kind),
            }),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.take() {
            Stage::Waiting(waiting) => waiting.call_method0(py, "close").map(drop),
            _ => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(stage) = self.0.try_lock()
            && let Stage::Waiting(waiting) = &*stage
        {
            visit.call(waiting)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        drop(self.take());
    }
}

/// One running call, for the Python half. Dropping this object cancels the call.
#[pyclass(frozen, module = "dlock._dlock")]
pub(crate) struct Pending {
    port: LoopPort,
    /// The number of the call in the port. The loop owns the future, so that the future goes with the loop.
    number: u64,
    canceller: Canceller,
    /// True if no task waits any more. Then the result is dropped on the thread where it arrives.
    dropped: Arc<AtomicBool>,
}

/// Begins a call whose end is reported to the loop.
pub(crate) fn pending<T: Send + 'static>(
    py: Python<'_>,
    op: Op<T>,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Py<Pending>> {
    noted(py, port(py)?, op, |_| (), convert)
}

/// Returns the port of the running loop.
pub(crate) fn port(py: Python<'_>) -> PyResult<LoopPort> {
    LoopPort::of(&needed_loop(py)?)
}

fn needed_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    running_loop(py)?.ok_or_else(|| PyRuntimeError::new_err("no running event loop"))
}

/// Begins a call like [`pending`]. `note` gets the result first, on a thread of the core.
pub(crate) fn noted<T: Send + 'static>(
    py: Python<'_>,
    port: LoopPort,
    op: Op<T>,
    note: impl FnOnce(&T) + Send + 'static,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Py<Pending>> {
    let future = needed_loop(py)?.call_method0("create_future")?.unbind();
    let canceller = op.canceller();
    let dropped = Arc::new(AtomicBool::new(false));
    let number = port.begin(future, canceller.clone());
    let pending = Py::new(py, Pending { port: port.clone(), number, canceller, dropped: dropped.clone() })?;
    let _ = op.on_done(move |result| {
        if dropped.load(Ordering::Acquire) {
            return;
        }
        let _ = result.as_ref().map(note);
        let queue = port.clone();
        queue.post(Box::new(move |py| {
            let Some(future) = port.settling(py, number) else { return Ok(()) };
            if future.call_method0(py, "done")?.is_truthy(py)? {
                return Ok(());
            }
            match result.map_err(|error| raised(py, &error)).and_then(|value| convert(py, value)) {
                Ok(value) => future.call_method1(py, "set_result", (value,)),
                Err(error) => future.call_method1(py, "set_exception", (error.into_value(py),)),
            }
            .map(drop)
        }));
    });
    Ok(pending)
}

#[pymethods]
impl Pending {
    /// Returns the future that is settled when the call is.
    #[getter]
    fn future(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.port.future(py, self.number).ok_or_else(|| PyRuntimeError::new_err("the call was settled before"))
    }

    /// Ends the wait. The result was taken, or is not wanted any more. If it wasn't taken, the call is cancelled.
    fn over(&self) {
        self.dropped.store(true, Ordering::Release);
        if !self.port.end(self.number) {
            self.canceller.cancel();
        }
    }

    /// Cancels the call. Returns None if the call is over already, and otherwise a future that is settled when the call
    /// is over. A second cancellation ends the wait.
    fn cancel(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.canceller.cancel();
        let Some(event_loop) = running_loop(py)? else { return Ok(None) };
        let future = event_loop.call_method0("create_future")?.unbind();
        Ok(self.port.instead(self.number, future.clone_ref(py)).then_some(future))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.over();
    }
}

/// Returns the coroutine of a plain call.
pub(crate) fn call<T: Send + 'static>(
    begin: impl FnOnce(Python<'_>) -> PyResult<Op<T>> + Send + Sync + 'static,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + Sync + 'static,
) -> Coroutine {
    Coroutine::new(move |py| {
        let mut op = begin(py)?;
        match op.settled() {
            Some(result) => {
                let value = result.map_err(|error| raised(py, &error))?;
                Ok(Outcome::Done(convert(py, value)?))
            }
            None => {
                let pending = pending(py, op, convert)?;
                Ok(Outcome::Later(python_coroutine(py, "settle", (pending,))?))
            }
        }
    })
}

/// Calls a coroutine function of the Python half.
pub(crate) fn python_coroutine<'py>(
    py: Python<'py>,
    name: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Py<PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("dlock._aio").map(Bound::unbind))?;
    module.bind(py).getattr(name)?.call1(arguments).map(Bound::unbind)
}
