//! How a running call meets asyncio: completions gather in a queue, an eventfd wakes the loop once, and the loop's own
//! thread settles them. Threads of the core never enter the interpreter for it.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlock::runtime::PerProcess;
use dlock::{Canceller, Op};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyType, PyWeakrefReference};

use crate::error::raised;

type Settle = Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the completions for one event loop gather.
#[derive(Clone)]
pub(crate) struct Port(Arc<Queue>);

struct Queue {
    /// Readable when something is in the queue.
    wake: Wake,
    done: Mutex<Vec<Settle>>,
}

/// What the loop calls when the descriptor is readable.
#[pyclass(frozen, module = "dlock._dlock")]
struct Drain(Port);

impl Port {
    /// The port of the running loop, made with the loop's first call.
    pub(crate) fn of(running: &Bound<'_, PyAny>) -> PyResult<Self> {
        type Ports = Mutex<HashMap<usize, (Py<PyWeakrefReference>, Port)>>;
        static PORTS: PerProcess<Ports> = PerProcess::new();
        let py = running.py();
        let ports = PORTS.get(Mutex::default);
        let id = running.as_ptr().addr();
        if let Some((owner, port)) = locked(ports).get(&id) {
            // The address may be that of an earlier loop.
            if owner.bind(py).upgrade().is_some_and(|owner| owner.is(running)) {
                return Ok(port.clone());
            }
        }
        let wake = Wake::new().map_err(PyErr::from)?;
        let port = Self(Arc::new(Queue { wake, done: Mutex::default() }));
        let drain = Py::new(py, Drain(port.clone()))?;
        running.call_method1("add_reader", (port.0.wake.read.as_raw_fd(), drain))?;
        let owner = PyWeakrefReference::new(running)?.unbind();
        let mut ports = locked(ports);
        ports.retain(|_, (owner, _)| owner.bind(py).upgrade().is_some());
        ports.insert(id, (owner, port.clone()));
        Ok(port)
    }

    /// Has this run on the loop's thread. From any thread; never enters the interpreter.
    pub(crate) fn post(&self, settle: Settle) {
        let mut done = locked(&self.0.done);
        let first = done.is_empty();
        done.push(settle);
        drop(done);
        if first {
            // Full only when the loop has not read for very long: then it is readable anyway.
            let _ = rustix::io::write(self.0.wake.write.as_ref().unwrap_or(&self.0.wake.read), &1_u64.to_ne_bytes());
        }
    }
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) {
        let mut count = [0; 64];
        let _ = rustix::io::read(&self.0.0.wake.read, &mut count);
        let done = std::mem::take(&mut *locked(&self.0.0.done));
        for settle in done {
            if let Err(error) = settle(py) {
                error.write_unraisable(py, None);
            }
        }
    }
}

/// An eventfd, or where there is none a pipe.
struct Wake {
    read: OwnedFd,
    write: Option<OwnedFd>,
}

impl Wake {
    #[cfg(target_os = "linux")]
    fn new() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self { read: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, write: None })
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> std::io::Result<Self> {
        let (read, write) = rustix::pipe::pipe()?;
        for end in [&read, &write] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self { read, write: Some(write) })
    }
}

/// The running loop, if this thread has one.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    // Without importing asyncio for those who don't use it.
    static MODULES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || py.import("sys")?.getattr("modules").map(Bound::unbind))?;
    if !modules.bind(py).contains("asyncio.events")? {
        return Ok(None);
    }
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let running = RUNNING.import(py, "asyncio.events", "_get_running_loop")?.call0()?;
    Ok((!running.is_none()).then_some(running))
}

/// The running task.
pub(crate) fn current_task(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CURRENT.import(py, "asyncio.tasks", "current_task")?.call0()
}

/// What a call comes to: at once, or through the loop.
pub(crate) enum Outcome {
    Done(Py<PyAny>),
    Later(Py<PyAny>),
}

type Begin = Box<dyn FnOnce(Python<'_>) -> PyResult<Outcome> + Send + Sync>;

/// A coroutine: begins when it is awaited, ends at once where nothing has to be waited for.
#[pyclass(frozen, module = "dlock._dlock", name = "coroutine")]
pub(crate) struct Call(Mutex<Stage>);

enum Stage {
    Fresh(Begin),
    /// The coroutine of the Python half that waits for it.
    Waiting(Py<PyAny>),
    Over,
}

impl Call {
    pub(crate) fn new(begin: impl FnOnce(Python<'_>) -> PyResult<Outcome> + Send + Sync + 'static) -> Self {
        Self(Mutex::new(Stage::Fresh(Box::new(begin))))
    }

    fn take(&self) -> Stage {
        std::mem::replace(&mut *locked(&self.0), Stage::Over)
    }

    /// Passes the result of one step of the waiting coroutine on; it goes on waiting if it yielded.
    fn step(&self, waiting: Py<PyAny>, step: PyResult<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        if step.is_ok() {
            *locked(&self.0) = Stage::Waiting(waiting);
        }
        step
    }
}

#[pymethods]
impl Call {
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
            // Cancelled before its first step: nothing was begun.
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
}

/// One call under way, as the Python half sees it. Dropping it cancels the call.
#[pyclass(frozen, module = "dlock._dlock")]
pub(crate) struct Pending {
    target: Arc<Target>,
    event_loop: Py<PyAny>,
    canceller: Canceller,
}

struct Target {
    /// The future to be settled.
    future: Mutex<Py<PyAny>>,
    settled: AtomicBool,
    /// Nobody waits any more: the result is dropped where it comes up.
    dropped: AtomicBool,
}

/// Begins a call that the loop is told of.
pub(crate) fn pending<T: Send + 'static>(
    py: Python<'_>,
    op: Op<T>,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Py<Pending>> {
    let event_loop = running_loop(py)?.ok_or_else(|| PyRuntimeError::new_err("no running event loop"))?;
    let port = Port::of(&event_loop)?;
    let future = event_loop.call_method0("create_future")?.unbind();
    let target = Arc::new(Target {
        future: Mutex::new(future),
        settled: AtomicBool::new(false),
        dropped: AtomicBool::new(false),
    });
    let told = target.clone();
    let canceller = op.on_done(move |result| {
        if told.dropped.load(Ordering::Acquire) {
            return;
        }
        port.post(Box::new(move |py| {
            let future = locked(&told.future).clone_ref(py);
            told.settled.store(true, Ordering::Release);
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
    Py::new(py, Pending { target, event_loop: event_loop.unbind(), canceller })
}

#[pymethods]
impl Pending {
    /// The future that is settled when the call is.
    #[getter]
    fn future(&self, py: Python<'_>) -> Py<PyAny> {
        locked(&self.target.future).clone_ref(py)
    }

    /// Withdraws. None when that is done already, else a future that is settled when it is; a second call ends the wait.
    fn cancel(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.canceller.cancel();
        if self.target.settled.load(Ordering::Acquire) {
            return Ok(None);
        }
        let future = self.event_loop.call_method0(py, "create_future")?;
        *locked(&self.target.future) = future.clone_ref(py);
        Ok(Some(future))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.target.dropped.store(true, Ordering::Release);
        if !self.target.settled.load(Ordering::Acquire) {
            self.canceller.cancel();
        }
    }
}

/// The coroutine of a plain call.
pub(crate) fn call<T: Send + 'static>(
    begin: impl FnOnce(Python<'_>) -> PyResult<Op<T>> + Send + Sync + 'static,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + Sync + 'static,
) -> Call {
    Call::new(move |py| {
        let mut op = begin(py)?;
        match op.settled() {
            Some(result) => {
                let value = result.map_err(|error| raised(py, &error))?;
                Ok(Outcome::Done(convert(py, value)?))
            }
            None => {
                let pending = pending(py, op, convert)?;
                Ok(Outcome::Later(half(py, "settle", (pending,))?))
            }
        }
    })
}

/// Calls a coroutine function of the Python half.
pub(crate) fn half<'py>(
    py: Python<'py>,
    name: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Py<PyAny>> {
    static HALF: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = HALF.get_or_try_init(py, || py.import("dlock._aio").map(Bound::unbind))?;
    module.bind(py).getattr(name)?.call1(arguments).map(Bound::unbind)
}
