//! The only local queue. Per name, first in, first out: N waiters of a process are one contender at the backend.
//!
//! The turn for a name belongs to whoever contends for it or holds it, and passes on when that has ended, so a process
//! never contends beside itself or beside what it left unfinished.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::shared::Shared;
use super::timer::{Deadline, Deadlines};
use crate::clock::Instant;
use crate::contract::{Claim, ContenderInfo};
use crate::runtime::lock;
use crate::runtime::op::CancelToken;

/// In tests the order in which queues are walked through is the same in every run.
#[cfg(feature = "testing")]
type Hasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;
#[cfg(not(feature = "testing"))]
type Hasher = std::hash::RandomState;

/// The holder of a name in this process, as the gate knows it.
pub(crate) trait Holder: Send + Sync + 'static {
    /// The user's key.
    fn key(&self) -> &Arc<str>;
    /// Returns true if it is over for this process, and its release isn't confirmed yet.
    fn is_being_released(&self) -> bool;
}

/// The local queues of one client, by the backend's name of the key.
#[derive(Debug)]
pub(crate) struct Gate<H: Holder> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadlines: Deadlines<KeyQueue<H>>,
    numbers: AtomicU64,
    queues: Mutex<HashMap<Arc<str>, Weak<KeyQueue<H>>, Hasher>>,
}

/// One name: the claim or the lease that has the turn, and those that wait for it.
#[derive(Debug)]
pub(crate) struct KeyQueue<H: Holder> {
    gate: Arc<Gate<H>>,
    name: Arc<str>,
    state: Mutex<State<H>>,
    deadline: Deadline,
    inspection: Mutex<Option<(Instant, Inspection)>>,
}

/// A request for the holder of a name; nothing until it is done.
pub(crate) type Inspection = watch::Receiver<Option<Option<ContenderInfo>>>;

#[derive(Debug)]
struct State<H: Holder> {
    taken: bool,
    /// The user's key of the claim that has the turn and doesn't hold yet.
    contender: Option<Arc<str>>,
    /// Whether the claim that has the turn only withdraws.
    withdraws: bool,
    holder: Weak<H>,
    queue: VecDeque<Waiting<H>>,
    /// How long the queue may get before those who have left are taken out of it.
    sweep: usize,
}

impl<H: Holder> Default for State<H> {
    fn default() -> Self {
        Self { taken: false, contender: None, withdraws: false, holder: Weak::new(), queue: VecDeque::new(), sweep: 0 }
    }
}

/// The least of that.
const SWEEP: usize = 64;

#[derive(Debug)]
struct Waiting<H: Holder> {
    claim: Claim,
    since: Instant,
    /// Its caller's wish to withdraw.
    cancel: CancelToken,
    grant: oneshot::Sender<Turn<H>>,
}

impl<H: Holder> Waiting<H> {
    fn has_left(&self) -> bool {
        self.grant.is_closed() || self.cancel.is_cancelled()
    }
}

/// The right to contend for a name. Passed on once: when asked to, or when dropped.
#[derive(Debug)]
pub(crate) struct Turn<H: Holder> {
    queue: Arc<KeyQueue<H>>,
    live: AtomicBool,
}

/// A place in the queue, which becomes the turn.
pub(crate) type LocalWait<H> = oneshot::Receiver<Turn<H>>;

/// What a claim gets from the queue of its name.
pub(crate) enum Entry<H: Holder> {
    Turn(Turn<H>),
    Wait(LocalWait<H>),
    Busy,
}

impl<H: Holder> Gate<H> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, deadlines: Deadlines::default(), numbers: AtomicU64::default(), queues: Mutex::default() }
    }

    /// The queue of this name, made now if there is none.
    pub(crate) fn queue(self: &Arc<Self>, name: &Arc<str>) -> Arc<KeyQueue<H>> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(name).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::new(KeyQueue {
            gate: self.clone(),
            name: name.clone(),
            state: Mutex::default(),
            deadline: Deadline::new(self.numbers.fetch_add(1, Ordering::Relaxed)),
            inspection: Mutex::new(None),
        });
        queues.insert(name.clone(), Arc::downgrade(&queue));
        queue
    }

    /// The queue of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<KeyQueue<H>>> {
        lock(&self.queues).get(name).and_then(Weak::upgrade)
    }

    /// The user's keys that this process holds (true) and waits for (false).
    pub(crate) fn query(&self) -> Vec<(String, bool)> {
        let queues: Vec<_> = lock(&self.queues).values().filter_map(Weak::upgrade).collect();
        let mut all = Vec::new();
        for queue in &queues {
            all.extend(queue.holder().map(|holder| (holder.key().to_string(), true)));
            all.extend(lock(&queue.state).contender.iter().map(|key| (key.to_string(), false)));
            all.extend(queue.waiting().iter().map(|(claim, _)| (claim.options.key.to_string(), false)));
        }
        all
    }

    /// Every holder whose release isn't confirmed yet.
    pub(crate) fn holders(&self) -> Vec<Arc<H>> {
        let queues: Vec<_> = lock(&self.queues).values().filter_map(Weak::upgrade).collect();
        queues.iter().filter_map(|queue| queue.holder()).collect()
    }
}

impl<H: Holder> KeyQueue<H> {
    /// The turn, if nobody has it.
    pub(crate) fn try_turn(self: &Arc<Self>) -> Option<Turn<H>> {
        let mut state = lock(&self.state);
        if state.taken {
            return None;
        }
        state.taken = true;
        Some(Turn::new(self))
    }

    /// Whether nothing is in the way but what this process has ended and not settled yet: a withdrawal or a release.
    pub(crate) fn is_ending(&self) -> bool {
        // Dropped where the state isn't locked: it may pass the turn on.
        let holder = self.holder();
        let state = lock(&self.state);
        let ends = state.withdraws || holder.as_ref().is_some_and(|holder| holder.is_being_released());
        state.taken && ends && state.queue.iter().all(|waiting| waiting.has_left())
    }

    /// The turn, or a place in the queue for it; one that only tries has a place only behind what is ending. Dropping
    /// the place leaves the queue, and passes on a turn that has come in the meantime; so does a wish to withdraw, at
    /// once.
    pub(crate) fn enter(self: &Arc<Self>, claim: &Claim, cancel: &CancelToken) -> Entry<H> {
        let stays = claim.wait || self.is_ending();
        let mut state = lock(&self.state);
        if !state.taken {
            state.taken = true;
            return Entry::Turn(Turn::new(self));
        }
        if !stays {
            return Entry::Busy;
        }
        let (grant, place) = oneshot::channel();
        if state.queue.len() >= state.sweep {
            state.queue.retain(|waiting| !waiting.has_left());
            state.sweep = (2 * state.queue.len()).max(SWEEP);
        }
        let (claim, cancel) = (claim.clone(), cancel.clone());
        state.queue.push_back(Waiting { claim, since: Instant::now(), cancel, grant });
        Entry::Wait(place)
    }

    /// The lease that has the turn.
    pub(crate) fn holder(&self) -> Option<Arc<H>> {
        lock(&self.state).holder.upgrade()
    }

    /// The inspection that was begun within this time, or one that `begin` begins: one for all who ask in one moment.
    pub(crate) fn inspect(&self, moment: Duration, begin: impl FnOnce() -> Inspection) -> Inspection {
        let (now, mut latest) = (Instant::now(), lock(&self.inspection));
        let fresh = latest.take().filter(|(begun, _)| now - *begun < moment);
        latest.insert(fresh.unwrap_or_else(|| (now, begin()))).1.clone()
    }

    /// Whether somebody has the turn.
    pub(crate) fn is_taken(&self) -> bool {
        lock(&self.state).taken
    }

    /// Who waits here for the turn, and since when.
    pub(crate) fn waiting(&self) -> Vec<(Claim, Instant)> {
        let state = lock(&self.state);
        let open = state.queue.iter().filter(|waiting| !waiting.has_left());
        open.map(|waiting| (waiting.claim.clone(), waiting.since)).collect()
    }

    pub(crate) fn gate(&self) -> &Arc<Gate<H>> {
        &self.gate
    }

    /// Makes the watchdog look at the holder of this name at this time at the latest.
    pub(crate) fn schedule(self: &Arc<Self>, then: Instant) {
        // Either this sees that the name was taken out of the deadlines, or the watchdog, which took it out, sees this
        // holder.
        fence(Ordering::SeqCst);
        if self.deadline.at() > then {
            self.schedule_now(then);
        }
    }

    fn schedule_now(self: &Arc<Self>, then: Instant) {
        self.gate.deadlines.put(self, then);
        self.gate.shared.timer.wake_by(then);
    }

    fn pass_on(self: &Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            (state.holder, state.contender, state.withdraws) = (Weak::new(), None, false);
            let Some(next) = state.queue.pop_front() else {
                state.taken = false;
                return;
            };
            drop(state);
            if next.cancel.is_cancelled() {
                continue;
            }
            match next.grant.send(Turn::new(self)) {
                Ok(()) => return,
                Err(unwanted) => unwanted.live.store(false, Ordering::Relaxed),
            }
        }
    }
}

impl<H: Holder> Turn<H> {
    fn new(queue: &Arc<KeyQueue<H>>) -> Self {
        Self { queue: queue.clone(), live: AtomicBool::new(true) }
    }

    pub(crate) fn queue(&self) -> &Arc<KeyQueue<H>> {
        &self.queue
    }

    /// Notes who contends for the name from here on.
    pub(crate) fn contend(&self, claim: &Claim) {
        lock(&self.queue.state).contender = Some(claim.options.key.clone());
    }

    /// Notes that nobody wants the name any more by this turn: it is kept until that is settled.
    pub(crate) fn withdraw(&self) {
        lock(&self.queue.state).withdraws = true;
    }

    /// Notes the lease that has the turn from here on.
    pub(crate) fn hold(&self, holder: &Arc<H>) {
        let mut state = lock(&self.queue.state);
        (state.holder, state.contender) = (Arc::downgrade(holder), None);
    }

    /// Passes it on, unless that has been done.
    pub(crate) fn pass(&self) {
        if self.live.swap(false, Ordering::AcqRel) {
            self.queue.pass_on();
        }
    }
}

impl<H: Holder> Drop for Turn<H> {
    fn drop(&mut self) {
        self.pass();
    }
}

impl<H: Holder> Gate<H> {
    /// Removes a queue that is being dropped.
    fn forget(&self, name: &str, deadline: &Deadline) {
        self.deadlines.remove(deadline);
        let mut queues = lock(&self.queues);
        // A new queue of the same name may stand there already.
        if queues.get(name).is_some_and(|queue| queue.strong_count() == 0) {
            queues.remove(name);
        }
    }
}

impl<H: Holder> Drop for Gate<H> {
    fn drop(&mut self) {
        self.shared.timer.stop();
    }
}

impl<H: Holder> AsRef<Deadline> for KeyQueue<H> {
    fn as_ref(&self) -> &Deadline {
        &self.deadline
    }
}

impl<H: Holder> Drop for KeyQueue<H> {
    fn drop(&mut self) {
        self.gate.forget(&self.name, &self.deadline);
    }
}
