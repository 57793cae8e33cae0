//! Rules: their patterns, and the waits for their actions.

use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Action, Direction};

/// The mutex of all rules. It is locked while a cut is made and counted, so that no thread sees only one of the two.
static BOARD: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

/// A counter of how often a rule's action was done.
#[derive(Clone, Debug, Default)]
pub struct Rule(Arc<AtomicU64>);

impl Rule {
    /// Returns the number of times so far.
    pub fn fired(&self) -> u64 {
        let _board = board();
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until the action was done so often. Returns false after the timeout.
    pub fn wait_fired(&self, times: u64, timeout: Duration) -> bool {
        let less = |_: &mut ()| self.0.load(Ordering::Relaxed) < times;
        let waited = CHANGED.wait_timeout_while(board(), timeout, less);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn fire(&self) {
        fire_with(std::slice::from_ref(self), || {});
    }
}

/// Calls `act`, and counts it for these rules.
pub(super) fn fire_with(rules: &[Rule], act: impl FnOnce()) {
    let _board = board();
    act();
    for rule in rules {
        rule.0.fetch_add(1, Ordering::Relaxed);
    }
    CHANGED.notify_all();
}

fn board() -> MutexGuard<'static, ()> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A rule in the proxy's thread.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) direction: Direction,
    pub(super) action: Action,
    pub(super) rule: Rule,
    pattern: Vec<u8>,
    which: (Bound<u64>, Bound<u64>),
    seen: u64,
}

pub(super) fn make(
    direction: Direction,
    pattern: &[u8],
    which: impl RangeBounds<u64>,
    action: Action,
) -> (Rule, Entry) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let which = (which.start_bound().cloned(), which.end_bound().cloned());
    let rule = Rule::default();
    (rule.clone(), Entry { id, direction, action, rule, pattern: pattern.to_vec(), which, seen: 0 })
}

impl Entry {
    /// Returns true if the rule's action applies to this whole request or reply.
    pub(super) fn in_value(&mut self, value: &[u8]) -> bool {
        self.position(value).is_some() && self.count()
    }

    /// Returns true if the rule's action applies to this part of a stream. `tail` is the rest of the earlier parts.
    pub(super) fn in_stream(&mut self, tail: &mut Vec<u8>, part: &[u8]) -> bool {
        tail.extend(part);
        let mut fires = false;
        while let Some(at) = self.position(tail) {
            tail.drain(..at + self.pattern.len());
            fires |= self.count();
        }
        let rest = tail.len().saturating_sub(self.pattern.len() - 1);
        tail.drain(..rest);
        fires
    }

    fn position(&self, bytes: &[u8]) -> Option<usize> {
        bytes.windows(self.pattern.len()).position(|window| window == self.pattern)
    }

    fn count(&mut self) -> bool {
        self.seen += 1;
        self.which.contains(&self.seen)
    }
}
