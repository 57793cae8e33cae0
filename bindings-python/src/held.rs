//! The entries of a `Lock`: one for each lease, with its owner, and the choice of the entry that ends when an owner
//! leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use dlock::{Kind, Op, ReleaseOutcome, State};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::raised;
use crate::lease::Lease;
use crate::options::OnLoss;
use crate::port::Place;
use crate::who;

/// An entry: a lease, with its owner and the task that is cancelled when the lease is lost.
pub(crate) struct Entry {
    pub(crate) lease: Py<Lease>,
    owner: usize,
    /// True if a block ends the entry.
    scoped: bool,
    guard: Option<Arc<Guard>>,
    /// The hold, as the event loop of its task knows it.
    place: Option<Place>,
}

/// A task that runs under a lease. The loop owns the task: a lock that outlives the loop must not keep it alive.
struct Guard {
    /// The number of earlier requests to cancel the task.
    cancelling: u64,
    /// The task, once it was cancelled because of the loss.
    fired: OnceLock<Py<PyAny>>,
    over: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Held,
    Lost,
    /// The lease was released by its own `release`, or belongs to the parent of a fork.
    Over,
}

/// The way in which an owner leaves: at the end of a block, or by `release`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Block,
    Release,
}

/// The entries of one `Lock`: one that is held at the most, and those that are lost and whose owner hasn't left yet.
#[derive(Default)]
pub(crate) struct Held {
    entries: Vec<Entry>,
    /// The owners whose block is still to end, although `release` has ended the entry.
    left: Vec<usize>,
    /// The number of blocks whose task's loop is gone, minus the number of such blocks that were collected.
    orphans: isize,
}

impl Entry {
    pub(crate) fn new(lease: Py<Lease>, owner: usize, scoped: bool, place: Option<Place>) -> Self {
        Self { lease, owner, scoped, guard: None, place }
    }

    /// Cancels the task when the lease is lost, if Python can distinguish that cancellation from others.
    pub(crate) fn guard(&mut self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let (lease, Some(place)) = (self.lease.get(), &self.place) else { return Ok(()) };
        if lease.when_lost() == OnLoss::Notify || !task.hasattr("uncancel")? {
            return Ok(());
        }
        let cancelling = task.call_method0("cancelling")?.extract()?;
        let guard = Arc::new(Guard { cancelling, fired: OnceLock::new(), over: AtomicBool::new(false) });
        let (told, port, number) = (guard.clone(), place.port().clone(), place.number());
        lease.core().on_lost_here(move || {
            let queue = port.clone();
            queue.post(Box::new(move |py| {
                if let Some(task) = port.holder(py, number).filter(|_| !told.over.load(Ordering::Acquire)) {
                    let _ = told.fired.set(task.clone_ref(py));
                    task.call_method0(py, "cancel")?;
                }
                Ok(())
            }));
        });
        self.guard = Some(guard);
        Ok(())
    }

    fn standing(&self) -> Standing {
        match self.lease.get().core().check() {
            Ok(()) => Standing::Held,
            Err(error) if error.kind() == Kind::Lost => Standing::Lost,
            Err(_) => Standing::Over,
        }
    }

    /// Returns the error of a release that has nothing to release.
    pub(crate) fn over(&self) -> Option<dlock::Error> {
        let lease = self.lease.get().core();
        if lease.state() == State::Released { lease.check().err() } else { None }
    }

    /// Ends the hold and begins the release. From here on a loss doesn't cancel the task.
    pub(crate) fn end(&mut self) -> Op<ReleaseOutcome> {
        if let Some(guard) = &self.guard {
            guard.over.store(true, Ordering::Release);
        }
        self.place = None;
        self.lease.get().give()
    }

    /// Decides the end of a block, from the result of the release (None: not confirmed) and the exception of the body.
    pub(crate) fn judge(
        &self,
        py: Python<'_>,
        released: Option<bool>,
        failure: Option<Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        static CANCELLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let mut ours = false;
        let mut lost = released == Some(false);
        if let Some(task) = self.guard.as_ref().and_then(|guard| guard.fired.get()) {
            lost = true;
            let left = task.call_method0(py, "uncancel")?.extract::<u64>(py)?;
            let cancelled = CANCELLED.import(py, "asyncio", "CancelledError")?;
            if failure.as_ref().map_or(Ok(false), |failure| failure.is_instance(cancelled))? {
                ours = self.guard.as_ref().is_some_and(|guard| left <= guard.cancelling);
            }
        }
        let lease = self.lease.get();
        if !lost || lease.when_lost() == OnLoss::Notify || failure.is_some() && !ours {
            return Ok(false);
        }
        let error = raised(py, &lease.core().loss());
        error.set_cause(py, failure.map(PyErr::from_value));
        Err(error)
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.lease)?;
        let fired = self.guard.as_ref().and_then(|guard| guard.fired.get());
        fired.map_or(Ok(()), |task| visit.call(task))
    }
}

impl Held {
    /// Returns true if there is no entry, and no block is still to end.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.left.is_empty()
    }

    /// Adds an entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Removes the entries that have no use any more when this owner comes back. They have to be dropped outside the
    /// lock's mutex.
    pub(crate) fn useless(&mut self, owner: usize) -> Vec<Entry> {
        let mut useless = Vec::new();
        let is_useless = |one: &Entry| (!one.scoped || one.owner == owner) && one.standing() == Standing::Over;
        while let Some(at) = self.entries.iter().position(is_useless) {
            useless.push(self.entries.remove(at));
        }
        self.left.retain(|left| *left != owner);
        useless
    }

    /// Removes the entry that ends when this owner leaves. A lost entry ends before a held one, and the owner's own
    /// entry before another's. A block ends its own entry before it ends another's. It ends nothing if its own entry
    /// was ended before.
    pub(crate) fn leave(&mut self, owner: usize, way: Way) -> Option<Entry> {
        // The common case.
        if let [only] = &*self.entries
            && only.owner == owner
            && self.left.is_empty()
            && (way == Way::Block || !only.scoped)
        {
            return self.entries.pop();
        }
        // The entry may have been made when the owner was not distinguished from its thread.
        let known = self.entries.iter().any(|entry| entry.owner == owner) || self.left.contains(&owner);
        let owner = if known { owner } else { who::thread() as usize };
        let rank = |entry: &Entry| match (way, entry.owner == owner, entry.standing()) {
            (_, true, Standing::Lost) => Some(0),
            (Way::Block, true, Standing::Held) => Some(1),
            (Way::Block, true, Standing::Over) => Some(2),
            (_, false, Standing::Lost) => Some(4),
            (_, true, Standing::Held) => Some(5),
            (_, false, Standing::Held) => Some(6),
            (Way::Release, true, Standing::Over) => Some(7),
            (Way::Release, false, Standing::Over) => Some(8),
            (Way::Block, false, Standing::Over) => None,
        };
        let first = self.entries.iter().enumerate().rev();
        let first = first.filter_map(|(at, entry)| Some((rank(entry)?, at))).min_by_key(|(rank, _)| *rank);
        let left = self.left.iter().position(|left| *left == owner).filter(|_| way == Way::Block);
        if let Some(at) = left.filter(|_| first.is_none_or(|(rank, _)| rank > 3)) {
            self.left.swap_remove(at);
            return None;
        }
        self.took(first?.1, way)
    }

    fn took(&mut self, at: usize, way: Way) -> Option<Entry> {
        let entry = self.entries.remove(at);
        if way == Way::Release && entry.scoped && !self.left.contains(&entry.owner) {
            self.left.push(entry.owner);
        }
        Some(entry)
    }

    /// Removes the entry of a task whose loop is gone.
    pub(crate) fn orphaned(&mut self, place: &Place) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.place.as_ref() == Some(place))?;
        let entry = self.entries.remove(at);
        self.orphans += isize::from(entry.scoped);
        Some(entry)
    }

    /// Returns true if a block that is collected belongs to a task whose loop is gone. It does if it is `outside` any
    /// loop.
    pub(crate) fn was_orphaned(&mut self, outside: bool) -> bool {
        let is = outside || self.orphans > 0;
        self.orphans -= isize::from(is);
        is
    }

    /// Returns the newest entry.
    pub(crate) fn last(&self) -> Option<&Entry> {
        self.entries.last()
    }

    /// Returns true if the lease of any entry is held.
    pub(crate) fn any(&self) -> bool {
        self.entries.iter().any(|entry| entry.lease.get().stands())
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.entries.iter().try_for_each(|entry| entry.traverse(visit))
    }
}

/// An entry whose release is running.
#[pyclass(frozen, module = "dlock._dlock")]
pub(crate) struct Leaving(pub(crate) Entry);

#[pymethods]
impl Leaving {
    fn judge(&self, py: Python<'_>, released: Option<bool>, failure: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        self.0.judge(py, released, failure)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.traverse(&visit)
    }
}
