//! The watches of a session: who is to be woken when a node is deleted. A watch of ZooKeeper fires once, and ends with
//! its connection; then everybody who waits asks again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use crate::runtime::lock;

/// The watchers of a session, by the path of the node.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<String, Vec<Weak<Watcher>>>>);

/// A claim that is to be woken.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// The name of the lock whose holder is to be checked then.
    holds: Option<Arc<str>>,
    fired: AtomicBool,
    notify: Notify,
}

impl Watches {
    /// Adds a watcher of this node. Before the request that sets the watch at the server: its event may come at once.
    /// `holds`: the name of the lock that the node's claim holds.
    pub(super) fn add(&self, path: &str, holds: Option<&Arc<str>>) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher { holds: holds.cloned(), ..Watcher::default() });
        let mut watches = lock(&self.0);
        let watchers = watches.entry(path.to_owned()).or_default();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(&watcher));
        watcher
    }

    /// Removes the entry of a node that nobody watches any more.
    pub(super) fn tidy(&self, path: &str) {
        let mut watches = lock(&self.0);
        if let Some(watchers) = watches.get_mut(path) {
            watchers.retain(|watcher| watcher.strong_count() > 0);
            if watchers.is_empty() {
                watches.remove(path);
            }
        }
    }

    /// Wakes the watchers of a node. Returns the names of the locks whose holders are to be checked.
    pub(super) fn fire(&self, path: &str) -> Vec<Arc<str>> {
        let watchers = lock(&self.0).remove(path).unwrap_or_default();
        watchers.iter().filter_map(Weak::upgrade).filter_map(|watcher| watcher.fire()).collect()
    }

    /// Wakes all watchers.
    pub(super) fn fire_all(&self) {
        let all = std::mem::take(&mut *lock(&self.0));
        all.values().flatten().filter_map(Weak::upgrade).for_each(|watcher| drop(watcher.fire()));
    }
}

impl Watcher {
    fn fire(&self) -> Option<Arc<str>> {
        self.fired.store(true, Ordering::Release);
        self.notify.notify_waiters();
        self.holds.clone()
    }

    /// Returns true if the watch has fired.
    pub(super) fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Resolves when the watch has fired.
    pub(super) async fn fired(self: Arc<Self>) {
        let mut notified = std::pin::pin!(self.notify.notified());
        notified.as_mut().enable();
        if !self.has_fired() {
            notified.await;
        }
    }
}
