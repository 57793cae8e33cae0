//! Watchers: one for each lock that is waited for, and the subscriptions to its deletions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::link::Link;
use super::mutex::Predecessors;
use super::watch_stream;
use crate::clock::{self, Instant};
use crate::contract::Context;
use crate::runtime::{self, lock};

/// The time for which an unused watcher is kept, so that the next contender of a busy lock finds it.
const LINGER: Duration = Duration::from_secs(1);

/// The watchers of a client.
pub(super) struct Watches {
    pub(super) link: Arc<Link>,
    context: Context,
    state: Mutex<State>,
}

/// The watchers and the task of the stream.
#[derive(Default)]
struct State {
    watchers: HashMap<Arc<str>, Watcher>,
    names: HashMap<i64, Arc<str>>,
    next: i64,
    /// The channel to the task of the stream, while there is one.
    commands: Option<mpsc::UnboundedSender<WatchCommand>>,
}

/// The watcher of one lock.
struct Watcher {
    id: i64,
    /// True after the server has confirmed the watcher; `None`: it refused the watcher.
    ready: watch::Sender<Option<bool>>,
    listeners: Vec<Arc<Listener>>,
    /// The time since which it is unused.
    idle: Option<Instant>,
}

/// A command to the task of the stream.
pub(super) enum WatchCommand {
    /// Start a watcher.
    Watch(i64, Arc<str>),
    /// Cancel a watcher.
    Cancel(i64),
    /// Cancel the watchers that are not used any more.
    Sweep,
}

/// A claim that deletions concern: those of the keys before its own, and of its own.
struct Listener {
    own: Vec<u8>,
    watch_state: Mutex<WatchState>,
    /// The revision of the key if the claim holds the lock; otherwise `i64::MAX`.
    held: AtomicI64,
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

/// A claim's subscription to the deletions of a lock's keys. It ends when it is dropped.
pub(super) struct Subscription {
    watches: Arc<Watches>,
    name: Arc<str>,
    listener: Arc<Listener>,
    ready: watch::Receiver<Option<bool>>,
}

impl Watches {
    pub(super) fn new(link: Arc<Link>, context: Context) -> Self {
        Self { link, context, state: Mutex::default() }
    }

    /// Subscribes the claim with this key to a lock. `existing`: only if the server watches the lock already.
    pub(super) fn subscribe(self: &Arc<Self>, name: &Arc<str>, own: &[u8], existing: bool) -> Option<Subscription> {
        let mut state = lock(&self.state);
        if existing && state.watchers.get(name).is_none_or(|watcher| *watcher.ready.borrow() != Some(true)) {
            return None;
        }
        let (watch_state, held) = (Mutex::new(WatchState::Idle), AtomicI64::new(i64::MAX));
        let listener = Arc::new(Listener { own: own.to_vec(), watch_state, held, notify: Notify::new() });
        let fresh = !state.watchers.contains_key(name);
        if fresh {
            state.next += 1;
            let (id, ready) = (state.next, watch::Sender::new(Some(false)));
            state.names.insert(id, name.clone());
            state.watchers.insert(name.clone(), Watcher { id, ready, listeners: Vec::new(), idle: None });
        }
        let watcher = state.watchers.get_mut(name)?;
        watcher.idle = None;
        watcher.listeners.push(listener.clone());
        let (id, ready) = (watcher.id, watcher.ready.subscribe());
        if fresh {
            self.send(&mut state, WatchCommand::Watch(id, name.clone()));
        }
        drop(state);
        Some(Subscription { watches: self.clone(), name: name.clone(), listener, ready })
    }

    /// Sends a command to the task of the stream, and starts the task if there is none.
    fn send(self: &Arc<Self>, state: &mut State, command: WatchCommand) {
        let command = match &state.commands {
            Some(commands) => match commands.send(command) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
            None => command,
        };
        let (commands, received) = mpsc::unbounded_channel();
        let _ = commands.send(command);
        state.commands = Some(commands);
        runtime::spawn(watch_stream::run(Arc::downgrade(self), received));
    }

    /// Returns all watchers, for a stream that starts.
    pub(super) fn all(&self) -> Vec<(i64, Arc<str>)> {
        let state = lock(&self.state);
        state.watchers.iter().map(|(name, watcher)| (watcher.id, name.clone())).collect()
    }

    /// Notes that the server watches from now on.
    pub(super) fn created(&self, id: i64) {
        self.with(id, |_, watcher| watcher.ready.send_replace(Some(true)));
    }

    /// Notes that this watcher gets no events any more. `for_good`: no other will either.
    pub(super) fn ended(&self, id: i64, for_good: bool) -> Option<Arc<str>> {
        self.with(id, |name, watcher| {
            watcher.ready.send_replace((!for_good).then_some(false));
            watcher.listeners.iter().for_each(|listener| listener.on_watch_end());
            name.clone()
        })
    }

    /// Notes that no watcher gets events any more.
    pub(super) fn all_ended(&self) {
        let ids: Vec<_> = lock(&self.state).names.keys().copied().collect();
        for id in ids {
            self.ended(id, false);
        }
    }

    /// Passes on the deletions of one answer, each with its revision. An answer contains whole revisions.
    pub(super) fn deleted(&self, id: i64, gone: &[(&[u8], i64)]) {
        let taken = self.with(id, |name, watcher| {
            let taken = watcher.listeners.iter().filter(|listener| listener.on_delete(gone)).count();
            (taken > 0).then(|| name.clone())
        });
        if let Some(name) = taken.flatten() {
            self.context.suspect(&name);
        }
    }

    /// Runs `work` on a watcher.
    fn with<T>(&self, id: i64, work: impl FnOnce(&Arc<str>, &mut Watcher) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        let name = state.names.get(&id)?.clone();
        state.watchers.get_mut(&name).map(|watcher| work(&name, watcher))
    }

    /// Cancels watchers that were not used for a while, and returns the time of the next sweep. When none is left, the
    /// commands end.
    pub(super) fn sweep(&self) -> Instant {
        let mut state = lock(&self.state);
        let mut next = Instant::NEVER;
        let mut done = Vec::new();
        state.watchers.retain(|_, watcher| match watcher.idle.map(|since| since.plus(LINGER)) {
            Some(end) if end.passed() => {
                done.push(watcher.id);
                false
            }
            Some(end) => {
                next = next.min(end);
                true
            }
            None => true,
        });
        for id in done {
            state.names.remove(&id);
            if let Some(commands) = &state.commands {
                let _ = commands.send(WatchCommand::Cancel(id));
            }
        }
        if state.watchers.is_empty() {
            state.commands = None;
        }
        next
    }
}

impl Listener {
    /// Applies deletions, and wakes the claim if they concern it. Returns true if a lock that it holds was taken away.
    fn on_delete(&self, gone: &[(&[u8], i64)]) -> bool {
        let mut watch_state = lock(&self.watch_state);
        let woken = gone.iter().filter(|(key, rev)| self.on_deleted_key(&mut watch_state, key, *rev)).count() > 0;
        drop(watch_state);
        if woken {
            self.notify.notify_one();
        }
        gone.iter().any(|(key, rev)| *key == self.own && *rev > self.held.load(Ordering::Acquire))
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
    fn on_watch_end(&self) {
        *lock(&self.watch_state) = WatchState::Notified;
        self.notify.notify_one();
    }
}

impl Subscription {
    /// Collects deletions from now on. Returns false if the server doesn't watch.
    pub(super) fn collect(&self) -> bool {
        *lock(&self.listener.watch_state) = WatchState::Collecting(Vec::new());
        *self.ready.borrow() == Some(true)
    }

    /// Waits for the deletion of these keys or our own. Returns false if the claim must read again at once.
    pub(super) fn arm(&self, predecessors: Predecessors) -> bool {
        let mut watch_state = lock(&self.listener.watch_state);
        let WatchState::Collecting(heard) = std::mem::replace(&mut *watch_state, WatchState::Notified) else {
            return false;
        };
        *watch_state = WatchState::Watching(predecessors);
        for (key, rev) in heard {
            self.listener.on_deleted_key(&mut watch_state, &key, rev);
        }
        matches!(*watch_state, WatchState::Watching(_))
    }

    /// Returns true if our key has become the first.
    pub(super) fn is_first(&self) -> bool {
        matches!(*lock(&self.listener.watch_state), WatchState::First)
    }

    /// Resolves when a deletion that wakes the claim has happened.
    pub(super) fn notified(&self) -> impl Future<Output = ()> + Send + 'static {
        let listener = self.listener.clone();
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

    /// Waits until the server watches. Returns false if it doesn't in time, or refuses.
    pub(super) async fn ready(&self, limit: Duration) -> bool {
        let mut ready = self.ready.clone();
        tokio::select! {
            biased;
            known = ready.wait_for(|ready| *ready != Some(false)) => known.is_ok_and(|known| *known == Some(true)),
            () = clock::sleep(limit) => false,
        }
    }

    /// Returns true if the subscription is that of the claim with this key.
    pub(super) fn is_for(&self, own: &[u8]) -> bool {
        *self.listener.own == *own
    }

    /// Notes that the claim holds the lock, since this revision.
    pub(super) fn begin_hold(&self, rev: i64) {
        *lock(&self.listener.watch_state) = WatchState::Idle;
        self.listener.held.store(rev, Ordering::Release);
    }

    /// Notes that the lock is being released: its end is no loss.
    pub(super) fn end_hold(&self) {
        self.listener.held.store(i64::MAX, Ordering::Release);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = lock(&self.watches.state);
        if let Some(watcher) = state.watchers.get_mut(&self.name) {
            watcher.listeners.retain(|listener| !Arc::ptr_eq(listener, &self.listener));
            if watcher.listeners.is_empty() {
                watcher.idle = Some(Instant::now());
                if let Some(commands) = &state.commands {
                    let _ = commands.send(WatchCommand::Sweep);
                }
            }
        }
    }
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(lock(&self.state).watchers.keys()).finish()
    }
}
