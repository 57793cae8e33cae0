//! The queue of completions for one event loop. A descriptor wakes the loop once, and the loop's own thread settles the
//! completions. The calls and the holds of the loop's tasks end with the loop.

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

/// The port of one event loop, where its completions gather.
#[derive(Clone)]
pub(crate) struct LoopPort(Arc<Queue>);

struct Queue {
    number: u64,
    epoch: u32,
    /// The number of the thread that made this port.
    thread: u64,
    /// The descriptor that is readable when something is in the queue.
    wake: Wake,
    done: Mutex<Done>,
    /// The calls and holds. Only threads attached to the interpreter lock this mutex, and never during a call into the
    /// interpreter: the garbage collector looks in here.
    table: Mutex<Table>,
}

#[derive(Default)]
struct Done {
    list: Vec<Settle>,
    /// True if the loop was closed. Then nothing is settled any more.
    closed: bool,
}

/// The calls and holds that end with the loop. The loop owns them, through its [`Drain`].
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

/// A task that holds a lock.
struct Hold {
    task: Py<PyAny>,
    lock: Py<PyWeakrefReference>,
}

type Ports = Mutex<FxHashMap<usize, (Py<PyWeakrefReference>, LoopPort)>>;
static PORTS: PerProcess<Ports> = PerProcess::new();

impl LoopPort {
    /// Returns the port of the running loop. Makes it with the loop's first call.
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

    /// Returns the port of the running loop, if it has one.
    pub(crate) fn known(running: &Bound<'_, PyAny>) -> Option<Self> {
        let ports = lock(PORTS.get(Mutex::default));
        let (owner, port) = ports.get(&running.as_ptr().addr())?;
        // The address may be that of an earlier loop.
        owner.bind(running.py()).upgrade().is_some_and(|owner| owner.is(running)).then(|| port.clone())
    }

    /// Returns the number of the loop.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// Queues work for the loop's thread, unless the loop is gone. May be called from any thread. Never enters the
    /// interpreter.
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

    /// Registers a running call and returns its number.
    pub(crate) fn begin(&self, future: Py<PyAny>, canceller: Canceller) -> u64 {
        let mut table = lock(&self.0.table);
        table.next += 1;
        let number = table.next;
        table.calls.insert(number, Running { future, canceller, settled: false });
        number
    }

    /// Returns the future of a call.
    pub(crate) fn future(&self, py: Python<'_>, number: u64) -> Option<Py<PyAny>> {
        lock(&self.0.table).calls.get(&number).map(|call| call.future.clone_ref(py))
    }

    /// Replaces the future of a call. Returns false if the call is settled already.
    pub(crate) fn instead(&self, number: u64, future: Py<PyAny>) -> bool {
        let before = match lock(&self.0.table).calls.get_mut(&number) {
            Some(call) if !call.settled => std::mem::replace(&mut call.future, future),
            _ => return false,
        };
        drop(before);
        true
    }

    /// Returns the future that is to be settled now, if a task still waits.
    pub(crate) fn settling(&self, py: Python<'_>, number: u64) -> Option<Py<PyAny>> {
        let mut table = lock(&self.0.table);
        let call = table.calls.get_mut(&number)?;
        call.settled = true;
        Some(call.future.clone_ref(py))
    }

    /// Forgets a call whose result was taken or isn't wanted any more. Returns false if there was no result yet.
    pub(crate) fn end(&self, number: u64) -> bool {
        let call = lock(&self.0.table).calls.remove(&number);
        call.is_none_or(|call| call.settled)
    }

    /// Registers a hold of a task, for as long as the returned place exists.
    pub(crate) fn hold(&self, task: Py<PyAny>, lock: Py<PyWeakrefReference>) -> Place {
        let mut table = runtime::lock(&self.0.table);
        table.next += 1;
        let number = table.next;
        table.holds.insert(number, Hold { task, lock });
        Place { port: self.clone(), number }
    }

    /// Returns the task of this hold, as long as it holds the lock.
    pub(crate) fn holder(&self, py: Python<'_>, number: u64) -> Option<Py<PyAny>> {
        lock(&self.0.table).holds.get(&number).map(|hold| hold.task.clone_ref(py))
    }

    /// Closes the port of a loop that was closed or collected. Cancels its calls and releases what its tasks hold.
    fn close(&self) {
        if self.0.epoch != runtime::epoch() {
            // The port belongs to the parent. A thread that doesn't exist in the child may have locked it for ever.
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
            // Results that no task will take are released here.
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

/// A hold of a task, as the task's loop knows it.
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

/// The object that the loop calls when the descriptor is readable. The loop has the only reference, so the object goes
/// when the loop is closed.
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
                // The weak reference is not visited, because the collector clears those that it visits.
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
