//! The only local queue. Per name, first in, first out: N waiters of a process are one contender at the backend.
//!
//! The turn for a name belongs to whoever contends for it or holds it, and passes on when that has ended, so a process
//! never contends beside itself or beside what it left unfinished.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::backend::Holder;
use crate::claim::Claim;
use crate::clock::Instant;
use crate::lease::Inner;
use crate::op::Cancel;
use crate::runtime::locked;
use crate::watchdog::{Deadlines, Due};

/// In tests the order in which slots are walked through is the same in every run.
#[cfg(feature = "testing")]
type Hasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;
#[cfg(not(feature = "testing"))]
type Hasher = std::hash::RandomState;

/// The slots of one client, by encoded name.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) deadlines: Deadlines,
    numbers: AtomicU64,
    slots: Mutex<HashMap<Arc<str>, Weak<Slot>, Hasher>>,
}

/// One name: who has the turn, and who waits for it.
#[derive(Debug)]
pub(crate) struct Slot {
    gate: Weak<Gate>,
    name: Arc<str>,
    state: Mutex<State>,
    /// When the watchdog has to look at it.
    pub(crate) due: Due,
    look: Mutex<Option<(Instant, Look)>>,
}

/// A look at who holds a name; nothing until it is done.
pub(crate) type Look = watch::Receiver<Option<Option<Holder>>>;

#[derive(Debug, Default)]
struct State {
    taken: bool,
    /// The user's key of whoever has the turn and doesn't hold yet.
    contender: Option<Arc<str>>,
    /// Whether whoever has the turn only withdraws.
    withdraws: bool,
    holder: Weak<Inner>,
    queue: VecDeque<Waiting>,
    /// How long the queue may get before those who have left are taken out of it.
    sweep: usize,
}

/// The least of that.
const SWEEP: usize = 64;

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    since: Instant,
    /// Its caller's wish to withdraw.
    cancel: Cancel,
    tell: oneshot::Sender<Turn>,
}

impl Waiting {
    fn has_left(&self) -> bool {
        self.tell.is_closed() || self.cancel.fired()
    }
}

/// The right to contend for a name. Passed on once: when asked to, or when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    slot: Arc<Slot>,
    live: AtomicBool,
}

/// A place in the queue.
pub(crate) type Place = oneshot::Receiver<Turn>;

/// What a claim gets from the queue of its name.
pub(crate) enum Entry {
    Turn(Turn),
    Place(Place),
    Busy,
}

impl Gate {
    pub(crate) fn slot(self: &Arc<Self>, name: &Arc<str>) -> Arc<Slot> {
        let mut slots = locked(&self.slots);
        if let Some(slot) = slots.get(name).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::new(Slot {
            gate: Arc::downgrade(self),
            name: name.clone(),
            state: Mutex::default(),
            due: Due::new(self.numbers.fetch_add(1, Ordering::Relaxed)),
            look: Mutex::new(None),
        });
        slots.insert(name.clone(), Arc::downgrade(&slot));
        slot
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Slot>> {
        locked(&self.slots).get(name).and_then(Weak::upgrade)
    }

    /// Which names this process holds (true) and waits for (false), by the user's key.
    pub(crate) fn query(&self) -> Vec<(String, bool)> {
        let slots: Vec<_> = locked(&self.slots).values().filter_map(Weak::upgrade).collect();
        let mut all = Vec::new();
        for slot in &slots {
            all.extend(slot.holder().map(|lease| (lease.claim().terms.key.to_string(), true)));
            all.extend(locked(&slot.state).contender.iter().map(|key| (key.to_string(), false)));
            all.extend(slot.waiting().iter().map(|(claim, _)| (claim.terms.key.to_string(), false)));
        }
        all
    }

    /// Every lease that is held, or was and isn't settled yet.
    pub(crate) fn holders(&self) -> Vec<Arc<Inner>> {
        let slots: Vec<_> = locked(&self.slots).values().filter_map(Weak::upgrade).collect();
        slots.iter().filter_map(|slot| slot.holder()).collect()
    }
}

impl Slot {
    /// The turn, if nobody has it.
    pub(crate) fn try_turn(self: &Arc<Self>) -> Option<Turn> {
        let mut state = locked(&self.state);
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
        let state = locked(&self.state);
        let ends = state.withdraws || holder.as_ref().is_some_and(|lease| lease.is_being_given_back());
        state.taken && ends && state.queue.iter().all(Waiting::has_left)
    }

    /// The turn, or a place in the queue for it; one that only tries has a place only behind what is ending. Dropping
    /// the place leaves the queue, and passes on a turn that has come in the meantime; so does a wish to withdraw, at
    /// once.
    pub(crate) fn queue(self: &Arc<Self>, claim: &Claim, cancel: &Cancel) -> Entry {
        let stays = claim.wait || self.is_ending();
        let mut state = locked(&self.state);
        if !state.taken {
            state.taken = true;
            return Entry::Turn(Turn::new(self));
        }
        if !stays {
            return Entry::Busy;
        }
        let (tell, place) = oneshot::channel();
        if state.queue.len() >= state.sweep {
            state.queue.retain(|waiting| !waiting.has_left());
            state.sweep = (2 * state.queue.len()).max(SWEEP);
        }
        let (claim, cancel) = (claim.clone(), cancel.clone());
        state.queue.push_back(Waiting { claim, since: Instant::now(), cancel, tell });
        Entry::Place(place)
    }

    /// The lease that has the turn.
    pub(crate) fn holder(&self) -> Option<Arc<Inner>> {
        locked(&self.state).holder.upgrade()
    }

    /// The look that was begun within this time, or one that `begin` begins: one for all who ask in one moment.
    pub(crate) fn look(&self, moment: Duration, begin: impl FnOnce() -> Look) -> Look {
        let (now, mut look) = (Instant::now(), locked(&self.look));
        let fresh = look.take().filter(|(begun, _)| now - *begun < moment);
        look.insert(fresh.unwrap_or_else(|| (now, begin()))).1.clone()
    }

    /// Whether somebody has the turn.
    pub(crate) fn is_taken(&self) -> bool {
        locked(&self.state).taken
    }

    /// Who waits here for the turn, and since when.
    pub(crate) fn waiting(&self) -> Vec<(Claim, Instant)> {
        let state = locked(&self.state);
        let open = state.queue.iter().filter(|waiting| !waiting.has_left());
        open.map(|waiting| (waiting.claim.clone(), waiting.since)).collect()
    }

    fn pass_on(self: &Arc<Self>) {
        loop {
            let mut state = locked(&self.state);
            (state.holder, state.contender, state.withdraws) = (Weak::new(), None, false);
            let Some(next) = state.queue.pop_front() else {
                state.taken = false;
                return;
            };
            drop(state);
            if next.cancel.fired() {
                continue;
            }
            match next.tell.send(Turn::new(self)) {
                Ok(()) => return,
                Err(unwanted) => unwanted.live.store(false, Ordering::Relaxed),
            }
        }
    }
}

impl Turn {
    fn new(slot: &Arc<Slot>) -> Self {
        Self { slot: slot.clone(), live: AtomicBool::new(true) }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Notes who contends for the name from here on.
    pub(crate) fn contend(&self, claim: &Claim) {
        locked(&self.slot.state).contender = Some(claim.terms.key.clone());
    }

    /// Notes that nobody wants the name any more by this turn: it is kept until that is settled.
    pub(crate) fn withdraw(&self) {
        locked(&self.slot.state).withdraws = true;
    }

    /// Notes the lease that has the turn from here on.
    pub(crate) fn hold(&self, lease: &Arc<Inner>) {
        let mut state = locked(&self.slot.state);
        (state.holder, state.contender) = (Arc::downgrade(lease), None);
    }

    /// Passes it on, unless that has been done.
    pub(crate) fn pass(&self) {
        if self.live.swap(false, Ordering::AcqRel) {
            self.slot.pass_on();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pass();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(gate) = self.gate.upgrade() else { return };
        gate.deadlines.remove(&self.due);
        let mut slots = locked(&gate.slots);
        // A new slot of the same name may stand there already.
        if slots.get(&self.name).is_some_and(|slot| slot.strong_count() == 0) {
            slots.remove(&self.name);
        }
    }
}
