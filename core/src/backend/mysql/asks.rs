//! What a session and its task share: the asks that wait, and what the session holds.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use super::connection::{Rows, Server};
use super::error::SERVICE;
use crate::clock::Instant;
use crate::contract::{Context, Released};
use crate::error::Error;
use crate::net::failure::{Failure, Outcome};
use crate::runtime::lock;
use crate::timing;

/// The answer to a try or a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// Ours; `sent` is the time from which the ttl counts.
    Granted { sent: Instant, fence: u64 },
    /// Somebody else's, or nobody's: the wait ended without the lock.
    Busy,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// The answer to a wait, once there is one.
pub(super) type Waited = Option<Result<Tried, Failure>>;

/// A statement for the session, or a part of one.
pub(super) enum Ask {
    /// Takes the lock if it is free.
    Try { name: Arc<str>, nonce: u64, answer: Answer<Tried> },
    /// Gives the lock back.
    Release { name: Arc<str>, nonce: u64, answer: Option<Answer<Released>> },
    /// Asks for an answer. Returns the time at which it was sent.
    Check { answer: Answer<Instant> },
    /// Waits for the lock for so many seconds at most.
    Wait { name: Arc<str>, nonce: u64, seconds: u64, answer: watch::Sender<Waited> },
    /// Runs these statements.
    Run { sql: String, answer: Answer<Vec<Rows>> },
}

impl Ask {
    pub(super) fn fail(self, failure: Failure) {
        match self {
            Self::Try { answer, .. } => drop(answer.send(Err(failure))),
            Self::Wait { answer, .. } => drop(answer.send(Some(Err(failure)))),
            Self::Release { answer, .. } => drop(answer.map(|answer| answer.send(Err(failure)))),
            Self::Check { answer } => drop(answer.send(Err(failure))),
            Self::Run { answer, .. } => drop(answer.send(Err(failure))),
        }
    }

    /// Returns true if it can share a statement with others.
    pub(super) fn shares(&self) -> bool {
        matches!(self, Self::Try { .. } | Self::Release { .. } | Self::Check { .. })
    }
}

/// The parts that a session and its task share.
pub(super) struct Shared {
    pub(super) number: u64,
    pub(super) id: u64,
    /// The server that the session is at.
    pub(super) place: String,
    pub(super) ttl: Duration,
    /// True if one claim has the session for itself. Then the server ends it after the ttl, also while it is looked after.
    pub(super) dedicated: bool,
    pub(super) server: Arc<Server>,
    pub(super) context: Context,
    pub(super) state: Mutex<State>,
    pub(super) more: Notify,
    /// Wakes the task of a session that is given up.
    pub(super) given_up: Notify,
    /// The time from which the ttl counts, in nanoseconds: at which the last answered statement was sent.
    pub(super) since: AtomicU64,
    /// The time at which the last answered statement was sent, pings included.
    pub(super) heard: AtomicU64,
}

/// A lock that a session holds, or may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    nonce: u64,
    /// False once its claim has no more use for it.
    wanted: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) asks: VecDeque<Ask>,
    pub(super) held: HashMap<Arc<str>, Held>,
    /// The time at which the statement under way was sent.
    pub(super) asking: Option<Instant>,
    /// True from before the statement that waits until it is answered.
    pub(super) waits: bool,
    /// The number of callers that have chosen the session and not asked yet.
    pub(super) chosen: usize,
    pub(super) closing: bool,
    /// True if the connection is given up here. The server may not know it.
    pub(super) given_up: bool,
    pub(super) over: Option<Failure>,
}

impl State {
    pub(super) fn is_silent(&self, ttl: Duration) -> bool {
        self.asking.is_some_and(|asked| asked.plus(timing::patience(ttl)).passed())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.asks.is_empty() && self.asking.is_none() && self.chosen == 0 && !self.waits
    }

    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns true if the session holds, or may hold, this lock for this claim.
    pub(super) fn holds(&self, name: &str, nonce: u64) -> bool {
        self.held.get(name).is_some_and(|held| held.nonce == nonce)
    }

    /// Notes that the session may hold a lock from now on. Returns false if it may hold the lock already: `GET_LOCK` is
    /// re-entrant, so it is not asked for.
    pub(super) fn add(&mut self, name: &Arc<str>, nonce: u64) -> bool {
        let is_new = !self.held.contains_key(name);
        if is_new {
            self.held.insert(name.clone(), Held { nonce, wanted: true });
        }
        is_new
    }

    /// Notes that the session doesn't hold a lock.
    pub(super) fn remove(&mut self, name: &str) {
        self.held.remove(name);
    }

    pub(super) fn leave(&mut self, name: &str, nonce: u64) {
        if let Some(held) = self.held.get_mut(name).filter(|held| held.nonce == nonce) {
            held.wanted = false;
        }
    }

    /// Returns true if nobody has a use for any lock that the session holds or may hold.
    pub(super) fn is_left(&self) -> bool {
        self.held.values().all(|held| !held.wanted)
    }

    /// Notes that the wait was answered. Returns false if the session was given up meanwhile.
    pub(super) fn end_wait(&mut self) -> bool {
        self.waits = false;
        !self.given_up
    }
}

impl Shared {
    pub(super) fn since(&self) -> Instant {
        Instant::from_nanos(self.since.load(Ordering::Acquire))
    }

    pub(super) fn heard(&self) -> Instant {
        Instant::from_nanos(self.heard.load(Ordering::Acquire))
    }

    pub(super) fn push(&self, ask: Ask) {
        let mut state = lock(&self.state);
        if let Some(over) = state.over.clone() {
            drop(state);
            return ask.fail(over);
        }
        state.asks.push_back(ask);
        drop(state);
        self.more.notify_one();
    }

    /// Returns the failure of a session that has ended.
    pub(super) fn over(&self) -> Failure {
        let ended = || {
            let error = Error::unavailable(format!("the session at {SERVICE} {} has ended", self.server.name()));
            Failure { error, outcome: Outcome::LeaseGone }
        };
        lock(&self.state).over.clone().unwrap_or_else(ended)
    }

    /// Ends the session for all who use it.
    pub(super) fn end(&self, why: Failure) {
        let failure = Failure { outcome: Outcome::LeaseGone, ..why };
        let asks = {
            let mut state = lock(&self.state);
            state.over.get_or_insert(failure.clone());
            (state.asking, state.waits) = (None, false);
            state.held.clear();
            std::mem::take(&mut state.asks)
        };
        asks.into_iter().for_each(|ask| ask.fail(failure.clone()));
        self.context.suspect_session(self.number);
    }

    /// Notes an answer to a statement that was sent at this time. `renews`: the ttl counts from it.
    pub(super) fn answered(&self, sent: Instant, renews: bool) {
        self.heard.fetch_max(sent.nanos(), Ordering::AcqRel);
        if renews {
            self.since.fetch_max(sent.nanos(), Ordering::AcqRel);
        }
        lock(&self.state).asking = None;
    }
}
