//! Where the completions for one event loop gather: in a queue, until an eventfd wakes the loop once and its own thread
//! settles them. What the loop's tasks have under way and hold ends with the loop.

use std::sync::{Arc, Mutex};

use dlock::Canceller;
use dlock::runtime::{self, PerProcess, Wake, lock};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;
use rustc_hash::FxHashMap;

use crate::bridge;
use crate::lease::Lease;
use crate::lock::Lock;
use crate::who;

pub(crate) type Settle = Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>;

/// Where the completions for one event loop gather.
#[derive(Clone)]
pub(crate) struct LoopPort(Arc<Queue>);

struct Queue {
    number: u64,
    epoch: u32,
    /// The thread's number that made it.
    thread: u64,
    /// Readable when something is in the queue.
    wake: Wake,
    done: Mutex<Done>,
    /// Only ever locked by threads attached to the interpreter, and never across a call into it: the garbage collector
    /// looks in here.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Done {
    list: Vec<Settle>,
    /// The loop was closed: nothing will be settled any more.
    closed: bool,
}

/// What ends with the loop. The loop owns it, through its [`Drain`].
#[derive(Default)]
struct Table {
    next: u64,
    calls: FxHashMap<u64, Running>,
    holds: FxHashMap<u64, Hold>,
}

/// A call whose result was not taken yet.
struct Running {
    future: Py<PyAny>,
    canceller: Canceller,
    settled: bool,
}

/// A task that holds.
struct Hold {
    task: Py<PyAny>,
    lock: Py<PyWeakrefReference>,
}

type Ports = Mutex<FxHashMap<usize, (Py<PyWeakrefReference>, LoopPort)>>;
static PORTS: PerProcess<Ports> = PerProcess::new();

impl LoopPort {
    /// The port of the running loop, made with the loop's first call.
    pub(crate) fn of(running: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Some(port) = Self::known(running) {
            return Ok(port);
        }
        let py = running.py();
        let port = Self(Arc::new(Queue {
            number: who::number(),
            epoch: runtime::epoch(),
            thread: who::thread(),
            wake: Wake::new().map_err(PyErr::from)?,
            done: Mutex::default(),
            table: Mutex::default(),
        }));
        let owner = PyWeakrefReference::new(running)?.unbind();
        let drain = Py::new(py, Drain(port.clone()))?;
        who::count_loop(true);
        running.call_method1("add_reader", (port.0.wake.descriptor(), drain))?;
        let before = lock(PORTS.get(Mutex::default)).insert(running.as_ptr().addr(), (owner, port.clone()));
        drop(before);
        Ok(port)
    }

    /// The port of the running loop, if it has one.
    pub(crate) fn known(running: &Bound<'_, PyAny>) -> Option<Self> {
        let ports = lock(PORTS.get(Mutex::default));
        let (owner, port) = ports.get(&running.as_ptr().addr())?;
        // The address may be that of an earlier loop.
        owner.bind(running.py()).upgrade().is_some_and(|owner| owner.is(running)).then(|| port.clone())
    }

    /// A number of the loop's own.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// Has this run on the loop's thread, unless the loop is gone. From any thread; never enters the interpreter.
    pub(crate) fn post(&self, settle: Settle) {
        let mut done = lock(&self.0.done);
        if done.closed {
            drop(done);
            return drop(settle);
        }
        done.list.push(settle);
        let first = done.list.len() == 1;
        drop(done);
        if first {
            self.0.wake.ring();
        }
    }

    /// Notes a call under way; answers its number.
    pub(crate) fn begin(&self, future: Py<PyAny>, canceller: Canceller) -> u64 {
        let mut table = lock(&self.0.table);
        table.next += 1;
        let number = table.next;
        table.calls.insert(number, Running { future, canceller, settled: false });
        number
    }

    /// The future of a call.
    pub(crate) fn future(&self, py: Python<'_>, number: u64) -> Option<Py<PyAny>> {
        lock(&self.0.table).calls.get(&number).map(|call| call.future.clone_ref(py))
    }

    /// Has another future settled for the call, if it isn't settled yet.
    pub(crate) fn instead(&self, number: u64, future: Py<PyAny>) -> bool {
        let before = match lock(&self.0.table).calls.get_mut(&number) {
            Some(call) if !call.settled => std::mem::replace(&mut call.future, future),
            _ => return false,
        };
        drop(before);
        true
    }

    /// The future that is to be settled now, if anybody still waits.
    pub(crate) fn settling(&self, py: Python<'_>, number: u64) -> Option<Py<PyAny>> {
        let mut table = lock(&self.0.table);
        let call = table.calls.get_mut(&number)?;
        call.settled = true;
        Some(call.future.clone_ref(py))
    }

    /// The result was taken, or nobody wants it any more. Whether it was there.
    pub(crate) fn end(&self, number: u64) -> bool {
        let call = lock(&self.0.table).calls.remove(&number);
        call.is_none_or(|call| call.settled)
    }

    /// Notes that a task holds, for as long as the place is kept.
    pub(crate) fn hold(&self, task: Py<PyAny>, lock: Py<PyWeakrefReference>) -> Place {
        let mut table = runtime::lock(&self.0.table);
        table.next += 1;
        let number = table.next;
        table.holds.insert(number, Hold { task, lock });
        Place { port: self.clone(), number }
    }

    /// The task that holds at this place, while it does.
    pub(crate) fn holder(&self, py: Python<'_>, number: u64) -> Option<Py<PyAny>> {
        lock(&self.0.table).holds.get(&number).map(|hold| hold.task.clone_ref(py))
    }

    /// The loop was closed, or collected: what it has under way is cancelled, and what its tasks hold is released.
    fn close(&self) {
        if self.0.epoch != runtime::epoch() {
            // The parent's: threads that aren't here may have it locked for ever.
            return;
        }
        let done = {
            let mut done = lock(&self.0.done);
            if std::mem::replace(&mut done.closed, true) {
                return;
            }
            std::mem::take(&mut done.list)
        };
        if self.0.thread == who::thread() {
            who::count_loop(false);
        }
        let (calls, holds) = {
            let mut table = lock(&self.0.table);
            (std::mem::take(&mut table.calls), std::mem::take(&mut table.holds))
        };
        calls.values().for_each(|call| call.canceller.cancel());
        let own = {
            let mut ports = lock(PORTS.get(Mutex::default));
            let own = ports.iter().find(|(_, (_, port))| port.number() == self.number()).map(|(id, _)| *id);
            own.and_then(|id| ports.remove(&id))
        };
        bridge::aside(|py| {
            // What came for nobody is given back here.
            drop((done, own));
            for call in calls.into_values().filter(|call| call.settled) {
                let result = call.future.bind(py).call_method0("result").ok();
                if let Some(lease) = result.and_then(|result| result.cast_into::<Lease>().ok()) {
                    lease.get().abandon();
                }
            }
            for (number, hold) in holds {
                let gone = hold.task.bind(py).call_method0("done").and_then(|done| done.is_truthy()).unwrap_or(false);
                let lock = hold.lock.bind(py).upgrade().and_then(|lock| lock.cast_into::<Lock>().ok());
                if let Some(lock) = lock.filter(|_| !gone) {
                    Lock::orphaned(&lock, &Place { port: self.clone(), number });
                }
            }
        });
    }
}

/// A task's hold, as its loop knows it.
pub(crate) struct Place {
    port: LoopPort,
    number: u64,
}

impl Place {
    pub(crate) fn port(&self) -> &LoopPort {
        &self.port
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.port.number() == other.port.number() && self.number == other.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.port.0.epoch == runtime::epoch() {
            let hold = lock(&self.port.0.table).holds.remove(&self.number);
            drop(hold);
        }
    }
}

/// What the loop calls when the descriptor is readable. The loop has the only reference: it goes when the loop is closed.
#[pyclass(frozen, module = "dlock._dlock")]
struct Drain(LoopPort);

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) {
        let queue = &self.0.0;
        queue.wake.hush();
        let done = std::mem::take(&mut lock(&queue.done).list);
        for settle in done {
            if let Err(error) = settle(py) {
                error.write_unraisable(py, None);
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(table) = self.0.0.table.try_lock() {
            for call in table.calls.values() {
                visit.call(&call.future)?;
            }
            for hold in table.holds.values() {
                // Not the weak reference: the collector clears those that it sees.
                visit.call(&hold.task)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.0.close();
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.0.close();
    }
}
