//! The effect of deletions on one claim.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::mutex::Predecessors;
use crate::runtime::lock;

/// A claim that deletions concern: those of the keys before its own, and of its own.
pub(super) struct Listener {
    own: Vec<u8>,
    watch_state: Mutex<WatchState>,
    /// The revision of the key if the claim holds the lock; otherwise `i64::MAX`.
    held: AtomicI64,
    /// The latest revision at which the key was deleted. The key may have been used by an earlier claim.
    gone: AtomicI64,
    notify: Notify,
}

/// The effect of a deletion on a claim.
enum WatchState {
    /// No effect.
    Idle,
    /// Collected: the request that tells which keys matter is in progress.
    Collecting(Vec<(Vec<u8>, i64)>),
    /// Compared with these keys and our own. Keys are used again, so a deletion before the read doesn't concern them.
    Watching(Predecessors),
    /// All keys before ours were deleted, and ours was not: it is the first.
    First,
    /// A deletion that wakes the claim has happened.
    Notified,
}

impl Listener {
    /// Returns the listener of the claim with this key.
    pub(super) fn new(own: &[u8]) -> Self {
        let (watch_state, held) = (Mutex::new(WatchState::Idle), AtomicI64::new(i64::MAX));
        Self { own: own.to_vec(), watch_state, held, gone: AtomicI64::new(0), notify: Notify::new() }
    }

    /// Applies deletions, and wakes the claim if they concern it. Returns true if a lock that it holds was taken away.
    pub(super) fn on_delete(&self, gone: &[(&[u8], i64)]) -> bool {
        let mut watch_state = lock(&self.watch_state);
        let woken = gone.iter().filter(|(key, rev)| self.on_deleted_key(&mut watch_state, key, *rev)).count() > 0;
        drop(watch_state);
        if woken {
            self.notify.notify_one();
        }
        let Some(rev) = gone.iter().filter(|(key, _)| *key == self.own).map(|(_, rev)| *rev).max() else {
            return false;
        };
        // Either this sees that the claim holds the lock, or `begin_hold` sees the deletion.
        self.gone.fetch_max(rev, Ordering::SeqCst);
        rev > self.held.load(Ordering::SeqCst)
    }

    /// Applies the deletion of one key. Returns true if the claim is to be woken.
    fn on_deleted_key(&self, watch_state: &mut WatchState, key: &[u8], rev: i64) -> bool {
        let own = *key == *self.own && !mutant!("etcd-own-key-not-checked");
        let news = match watch_state {
            WatchState::Collecting(heard) => {
                heard.push((key.to_vec(), rev));
                return false;
            }
            WatchState::Watching(predecessors) if rev > predecessors.at => {
                let nearest = predecessors.keys.first().is_some_and(|nearest| nearest == key);
                predecessors.keys.retain(|other| other != key);
                match predecessors.complete {
                    _ if own => WatchState::Notified,
                    true if predecessors.keys.is_empty() => WatchState::First,
                    false if nearest => WatchState::Notified,
                    _ => return false,
                }
            }
            WatchState::First if own => WatchState::Notified,
            _ => return false,
        };
        *watch_state = news;
        true
    }

    /// Wakes the claim: its watcher gets no events any more.
    pub(super) fn on_watch_end(&self) {
        *lock(&self.watch_state) = WatchState::Notified;
        self.notify.notify_one();
    }

    /// Collects deletions from now on.
    pub(super) fn collect(&self) {
        *lock(&self.watch_state) = WatchState::Collecting(Vec::new());
    }

    /// Waits for the deletion of these keys or our own. Returns false if the claim must read again at once.
    pub(super) fn arm(&self, predecessors: Predecessors) -> bool {
        let mut watch_state = lock(&self.watch_state);
        let WatchState::Collecting(heard) = std::mem::replace(&mut *watch_state, WatchState::Notified) else {
            return false;
        };
        *watch_state = WatchState::Watching(predecessors);
        for (key, rev) in heard {
            self.on_deleted_key(&mut watch_state, &key, rev);
        }
        matches!(*watch_state, WatchState::Watching(_))
    }

    /// Returns true if our key has become the first.
    pub(super) fn is_first(&self) -> bool {
        matches!(*lock(&self.watch_state), WatchState::First)
    }

    /// Resolves when a deletion that wakes the claim has happened.
    pub(super) fn notified(self: &Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let listener = self.clone();
        async move {
            loop {
                let notified = listener.notify.notified();
                if matches!(*lock(&listener.watch_state), WatchState::First | WatchState::Notified) {
                    return;
                }
                notified.await;
            }
        }
    }

    /// Returns true if this is the listener of the claim with this key.
    pub(super) fn is_for(&self, own: &[u8]) -> bool {
        *self.own == *own
    }

    /// Notes that the claim holds the lock, since this revision. Returns true if the lock was taken away already.
    pub(super) fn begin_hold(&self, rev: i64) -> bool {
        *lock(&self.watch_state) = WatchState::Idle;
        self.held.store(rev, Ordering::SeqCst);
        self.gone.load(Ordering::SeqCst) > rev
    }

    /// Notes that the lock is being released: its end is no loss.
    pub(super) fn end_hold(&self) {
        self.held.store(i64::MAX, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::Listener;

    #[test]
    fn a_deletion_between_grant_and_lease_is_not_forgotten() {
        let listener = Listener::new(b"k/7");
        listener.collect();
        // That of an earlier claim with the same key, and that of another.
        assert!(!listener.on_delete(&[(b"k/7", 5)]) && !listener.on_delete(&[(b"k/8", 9)]));
        assert!(!listener.begin_hold(6));
        assert!(listener.on_delete(&[(b"k/7", 8)]), "held");
        let listener = Listener::new(b"k/7");
        assert!(!listener.on_delete(&[(b"k/7", 8)]), "not known to be held");
        assert!(listener.begin_hold(6), "its lease is to be checked");
        listener.end_hold();
        assert!(!listener.on_delete(&[(b"k/7", 12)]), "released");
    }
}
