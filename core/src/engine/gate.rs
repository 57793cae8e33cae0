//! The only local queue. It is first in, first out for each name, and N waiters of a process are one contender at the
//! backend. Gate, queues, waiters and turns share one state, so they share this file, although it is long.
//!
//! One claim of a process at a time has the turn: the right to contend for the name at the backend. The claim keeps its
//! place until its lease, or what it left unfinished, has ended. The next claim has the turn once the rule of admission
//! lets it hold beside those. So a process never contends beside itself, nor beside what it left unfinished.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::{oneshot, watch};

use super::shared::Shared;
use super::timer::{Deadline, Deadlines};
use crate::clock::Instant;
use crate::contract::admission::Tally;
use crate::contract::{Claim, ContenderInfo, Mode};
use crate::runtime::cancel::CancelToken;
use crate::runtime::lock;

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

/// One name: the leases that hold it, the claim that contends for it, and those that wait here.
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
    /// The mode of the claim that contends at the backend.
    contending: Option<Mode>,
    /// True if the lock may have been taken away since that claim began to contend: from its lease, if it has one by
    /// then.
    suspected: bool,
    /// The user's key of that claim.
    contender: Option<Arc<str>>,
    /// True if that claim only withdraws.
    withdraws: bool,
    /// In no order.
    holders: SmallVec<[Held<H>; 1]>,
    /// The sum of the holders.
    holding: Tally,
    queue: VecDeque<Waiting<H>>,
    /// The greatest limit of permits of those in the queue, since it was empty.
    limit: u32,
    /// The length of the queue at which those who have left are taken out of it.
    sweep: usize,
    /// The number of the next holder.
    next: u64,
}

#[derive(Debug)]
struct Held<H> {
    number: u64,
    mode: Mode,
    holder: Weak<H>,
}

impl<H: Holder> Default for State<H> {
    fn default() -> Self {
        Self {
            contending: None,
            suspected: false,
            contender: None,
            withdraws: false,
            holders: SmallVec::new(),
            holding: Tally::default(),
            queue: VecDeque::new(),
            limit: 0,
            sweep: 0,
            next: 1,
        }
    }
}

impl<H: Holder> State<H> {
    /// Returns true if a claim of this mode may contend now, beside the holders, were nothing before it in the queue.
    fn admits(&self, mode: Mode) -> bool {
        self.contending.is_none() && (self.holders.is_empty() || self.holding.admits(mode))
    }

    /// Gives the right to contend to a claim of this mode.
    fn give_turn(&mut self, mode: Mode) {
        (self.contending, self.suspected) = (Some(mode), false);
    }

    /// Ends the contention of a claim.
    fn end_contention(&mut self) {
        (self.contending, self.contender, self.withdraws) = (None, None, false);
    }

    /// The place of the first claim in the queue that may contend now.
    fn first_admitted(&self) -> Option<usize> {
        let mut ahead = self.holding;
        for (at, waiting) in self.queue.iter().enumerate().filter(|(_, waiting)| !waiting.has_left()) {
            let mode = waiting.claim.options.mode;
            if ahead.admits(mode) {
                return Some(at);
            }
            if !ahead.admits_some(self.limit) {
                return None;
            }
            ahead.add(mode);
        }
        None
    }

    /// Takes those out of the front of the queue that have left.
    fn prune(&mut self) {
        while self.queue.front().is_some_and(Waiting::has_left) {
            self.queue.pop_front();
        }
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

/// The right to contend for a name, and then to hold it. It is given up once: when asked to, or when dropped.
#[derive(Debug)]
pub(crate) struct Turn<H: Holder> {
    queue: Arc<KeyQueue<H>>,
    mode: Mode,
    /// [`CONTENDS`], [`PASSED`], or the number of the holder. Changed while the queue's state is locked.
    phase: AtomicU64,
}

const CONTENDS: u64 = 0;
const PASSED: u64 = u64::MAX;

/// A place in the queue, which becomes the turn. Dropped, it leaves the queue.
#[derive(Debug)]
pub(crate) struct LocalWait<H: Holder> {
    queue: Arc<KeyQueue<H>>,
    turn: Option<oneshot::Receiver<Turn<H>>>,
}

impl<H: Holder> Future for LocalWait<H> {
    type Output = Option<Turn<H>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.turn {
            Some(turn) => Pin::new(turn).poll(context).map(Result::ok),
            None => Poll::Ready(None),
        }
    }
}

impl<H: Holder> Drop for LocalWait<H> {
    fn drop(&mut self) {
        // A turn that has come in the meantime is passed on.
        drop(self.turn.take());
        // Those behind may not have to wait for anybody else.
        self.queue.admit_next();
    }
}

/// The answer of a name's queue to a claim.
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
            all.extend(queue.holders().iter().map(|holder| (holder.key().to_string(), true)));
            all.extend(lock(&queue.state).contender.iter().map(|key| (key.to_string(), false)));
            all.extend(queue.waiting().iter().map(|(claim, _)| (claim.options.key.to_string(), false)));
        }
        all
    }

    /// Every holder that may have lost its lock, as [`KeyQueue::suspects`] has them.
    pub(crate) fn suspects(&self) -> Vec<Arc<H>> {
        let queues: Vec<_> = lock(&self.queues).values().filter_map(Weak::upgrade).collect();
        queues.iter().flat_map(|queue| queue.suspects()).collect()
    }

    /// Every holder whose release isn't confirmed yet.
    pub(crate) fn holders(&self) -> Vec<Arc<H>> {
        let queues: Vec<_> = lock(&self.queues).values().filter_map(Weak::upgrade).collect();
        queues.iter().flat_map(|queue| queue.holders()).collect()
    }
}

impl<H: Holder> KeyQueue<H> {
    /// The turn, if this mode is admitted at once.
    pub(crate) fn try_turn(self: &Arc<Self>, mode: Mode) -> Option<Turn<H>> {
        let mut state = lock(&self.state);
        if !state.queue.is_empty() {
            state.prune();
        }
        if !state.queue.is_empty() || !state.admits(mode) {
            return None;
        }
        state.give_turn(mode);
        drop(state);
        Some(Turn::new(self, mode))
    }

    /// Returns true if a claim of this mode may not hold beside those that hold the name, contend for it or wait here.
    pub(crate) fn is_busy(&self, mode: Mode) -> bool {
        let state = lock(&self.state);
        let mut ahead = state.holding;
        let waiting =
            state.queue.iter().filter(|waiting| !waiting.has_left()).map(|waiting| waiting.claim.options.mode);
        // What isn't admitted behind some is admitted behind no more.
        let mut before = state.contending.into_iter().chain(waiting);
        !ahead.admits(mode)
            || before.any(|before| {
                ahead.add(before);
                !ahead.admits(mode)
            })
    }

    /// Returns true if nothing is in the way but what this process has ended and not confirmed yet: a withdrawal or a
    /// release.
    pub(crate) fn is_ending(&self) -> bool {
        // Dropped where the state isn't locked: a last reference passes the turn on.
        let holders = self.holders();
        let state = lock(&self.state);
        let contender_ends = state.contending.is_none() || state.withdraws;
        let holders_end = holders.iter().all(|holder| holder.is_being_released());
        (state.contending.is_some() || !holders.is_empty())
            && contender_ends
            && holders_end
            && state.queue.iter().all(Waiting::has_left)
    }

    /// The turn, or a place in the queue for it; a claim that only tries has a place only behind what ends soon.
    /// Dropping the place leaves the queue, and passes on a turn that has come in the meantime; so does a wish to
    /// withdraw, at once.
    pub(crate) fn enter(self: &Arc<Self>, claim: &Claim, cancel: &CancelToken) -> Entry<H> {
        let mode = claim.options.mode;
        if let Some(turn) = self.try_turn(mode) {
            return Entry::Turn(turn);
        }
        // In this order: what ends in between isn't in the way any more.
        if !claim.wait && !self.is_ending() && self.is_busy(mode) {
            return Entry::Busy;
        }
        let mut state = lock(&self.state);
        let (grant, turn) = oneshot::channel();
        if state.queue.len() >= state.sweep {
            state.queue.retain(|waiting| !waiting.has_left());
            state.sweep = (2 * state.queue.len()).max(SWEEP);
        }
        state.limit = if state.queue.is_empty() { mode.limit() } else { state.limit.max(mode.limit()) };
        let (claim, cancel) = (claim.clone(), cancel.clone());
        state.queue.push_back(Waiting { claim, since: Instant::now(), cancel, grant });
        drop(state);
        // What was in the way may have gone in the meantime.
        self.admit_next();
        Entry::Wait(LocalWait { queue: self.clone(), turn: Some(turn) })
    }

    /// A lease that holds the name.
    pub(crate) fn holder(&self) -> Option<Arc<H>> {
        lock(&self.state).holders.iter().find_map(|held| held.holder.upgrade())
    }

    /// All leases that hold the name.
    pub(crate) fn holders(&self) -> Vec<Arc<H>> {
        lock(&self.state).holders.iter().filter_map(|held| held.holder.upgrade()).collect()
    }

    /// All leases that hold the name, and may have lost it. A claim that contends passes the suspicion on to its lease.
    pub(crate) fn suspects(&self) -> Vec<Arc<H>> {
        let mut state = lock(&self.state);
        state.suspected = state.contending.is_some() && !mutant!("client-break-misses-a-grant");
        state.holders.iter().filter_map(|held| held.holder.upgrade()).collect()
    }

    /// The inspection that was begun within this time, or one that `begin` begins: one for all who ask in one moment.
    pub(crate) fn inspect(&self, moment: Duration, begin: impl FnOnce() -> Inspection) -> Inspection {
        let (now, mut latest) = (Instant::now(), lock(&self.inspection));
        let fresh = latest.take().filter(|(begun, _)| now - *begun < moment);
        latest.insert(fresh.unwrap_or_else(|| (now, begin()))).1.clone()
    }

    /// Returns true if a claim contends for the name or holds it.
    #[cfg(feature = "testing")]
    pub(crate) fn is_taken(&self) -> bool {
        let state = lock(&self.state);
        state.contending.is_some() || !state.holders.is_empty()
    }

    /// Returns the claims that wait here for the turn, and since when.
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
            self.gate.deadlines.put(self, then);
            self.gate.shared.timer.wake_by(then);
        }
    }

    /// Ends a turn, unless that has been done, and gives the next one.
    fn pass_on(self: &Arc<Self>, turn: &AtomicU64) {
        let mut state = lock(&self.state);
        let phase = turn.load(Ordering::Relaxed);
        turn.store(PASSED, Ordering::Relaxed);
        if phase == PASSED {
            return;
        }
        if phase == CONTENDS {
            state.end_contention();
        } else if matches!(&*state.holders, [only] if only.number == phase) {
            // The common case: it alone.
            state.holders.pop();
            state.holding = Tally::default();
        } else if let Some(at) = state.holders.iter().position(|held| held.number == phase) {
            let left = state.holders.swap_remove(at);
            state.holding.remove(left.mode);
        }
        let more = !state.queue.is_empty();
        drop(state);
        if more {
            self.admit_next();
        }
    }

    /// Gives the turn to the first claim of the queue that is admitted beside the holders and those before it.
    fn admit_next(self: &Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            if state.contending.is_some() || state.queue.is_empty() {
                return;
            }
            state.prune();
            let Some(at) = state.first_admitted() else { return };
            let Some(next) = state.queue.remove(at) else { return };
            let mode = next.claim.options.mode;
            state.give_turn(mode);
            drop(state);
            match next.grant.send(Turn::new(self, mode)) {
                Ok(()) => return,
                // It has left meanwhile: the next one.
                Err(unwanted) => {
                    let mut state = lock(&self.state);
                    unwanted.phase.store(PASSED, Ordering::Relaxed);
                    state.contending = None;
                }
            }
        }
    }
}

impl<H: Holder> Turn<H> {
    fn new(queue: &Arc<KeyQueue<H>>, mode: Mode) -> Self {
        Self { queue: queue.clone(), mode, phase: AtomicU64::new(CONTENDS) }
    }

    pub(crate) fn queue(&self) -> &Arc<KeyQueue<H>> {
        &self.queue
    }

    /// Notes the claim that contends for the name from here on.
    pub(crate) fn contend(&self, claim: &Claim) {
        lock(&self.queue.state).contender = Some(claim.options.key.clone());
    }

    /// Notes that the claim only withdraws: the turn is kept until that is confirmed.
    pub(crate) fn withdraw(&self) {
        lock(&self.queue.state).withdraws = true;
    }

    /// Notes the lease that holds the name from here on. Claims behind it may contend, if they may hold beside it.
    /// Returns true if the lock may have been taken away since it was asked for.
    pub(crate) fn hold(&self, holder: &Arc<H>) -> bool {
        let mut state = lock(&self.queue.state);
        let number = state.next;
        state.next += 1;
        state.holders.push(Held { number, mode: self.mode, holder: Arc::downgrade(holder) });
        state.holding.add(self.mode);
        state.end_contention();
        let suspected = state.suspected;
        self.phase.store(number, Ordering::Relaxed);
        let more = !state.queue.is_empty();
        drop(state);
        if more {
            self.queue.admit_next();
        }
        suspected
    }

    /// Passes it on, unless that has been done.
    pub(crate) fn pass(&self) {
        self.queue.pass_on(&self.phase);
    }
}

impl<H: Holder> Drop for Turn<H> {
    fn drop(&mut self) {
        if *self.phase.get_mut() != PASSED {
            self.pass();
        }
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
