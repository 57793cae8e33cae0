//! Who is told what: a watcher for each lock that is waited for, and those whom a deleted key concerns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::link::Link;
use super::mutex::Line;
use super::watch_stream;
use crate::clock::{self, Instant};
use crate::contract::Context;
use crate::runtime::{self, lock};

/// How long a watcher that nobody uses is kept: the next contender of a busy lock finds it.
const LINGER: Duration = Duration::from_secs(1);

/// The watchers of a client.
pub(super) struct Watches {
    pub(super) link: Arc<Link>,
    context: Context,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watchers: HashMap<Arc<str>, Watcher>,
    names: HashMap<i64, Arc<str>>,
    next: i64,
    /// To the task that has the stream, while there is one.
    orders: Option<mpsc::UnboundedSender<Order>>,
}

/// The watcher of one lock.
struct Watcher {
    id: i64,
    /// Whether the server has said that it is there; `None`: that it can't be.
    ready: watch::Sender<Option<bool>>,
    listeners: Vec<Arc<Listener>>,
    /// Since when nobody uses it.
    idle: Option<Instant>,
}

/// What the task that has the stream is to do.
pub(super) enum Order {
    Watch(i64, Arc<str>),
    Cancel(i64),
    /// Look what is not used any more.
    Sweep,
}

/// Somebody whom some deletions concern.
struct Listener {
    own: Vec<u8>,
    ear: Mutex<Ear>,
    /// The revision since which the key is that of a lock that is held; `i64::MAX`: it is not.
    held: AtomicI64,
    ring: Notify,
}

enum Ear {
    /// To nothing.
    Closed,
    /// To everything: which key matters is being asked.
    Open(Vec<(Vec<u8>, i64)>),
    /// To these keys and our own. Keys are used again, so ends before these were seen concern others.
    To(Line),
    /// Of all the keys before ours we have heard the end, and not of ours: it is the first.
    First,
    /// Something has happened.
    Rung,
}

/// An interest in a lock; dropped, it is over.
pub(super) struct Interest {
    watches: Arc<Watches>,
    name: Arc<str>,
    listener: Arc<Listener>,
    ready: watch::Receiver<Option<bool>>,
}

impl Watches {
    pub(super) fn new(link: Arc<Link>, context: Context) -> Self {
        Self { link, context, state: Mutex::default() }
    }

    /// An interest in this lock, for the one whose key this is. `made`: only if it is watched already.
    pub(super) fn enter(self: &Arc<Self>, name: &Arc<str>, own: &[u8], made: bool) -> Option<Interest> {
        let mut state = lock(&self.state);
        if made && state.watchers.get(name).is_none_or(|watcher| *watcher.ready.borrow() != Some(true)) {
            return None;
        }
        let (ear, held) = (Mutex::new(Ear::Closed), AtomicI64::new(i64::MAX));
        let listener = Arc::new(Listener { own: own.to_vec(), ear, held, ring: Notify::new() });
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
            self.order(&mut state, Order::Watch(id, name.clone()));
        }
        drop(state);
        Some(Interest { watches: self.clone(), name: name.clone(), listener, ready })
    }

    fn order(self: &Arc<Self>, state: &mut State, order: Order) {
        let order = match &state.orders {
            Some(orders) => match orders.send(order) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
            None => order,
        };
        let (orders, ordered) = mpsc::unbounded_channel();
        let _ = orders.send(order);
        state.orders = Some(orders);
        runtime::spawn(watch_stream::run(Arc::downgrade(self), ordered));
    }

    /// All that is to be watched, for a stream that begins: nobody has heard anything in between.
    pub(super) fn all(&self) -> Vec<(i64, Arc<str>)> {
        let state = lock(&self.state);
        state.watchers.iter().map(|(name, watcher)| (watcher.id, name.clone())).collect()
    }

    /// The server watches from now on.
    pub(super) fn created(&self, id: i64) {
        self.with(id, |_, watcher| watcher.ready.send_replace(Some(true)));
    }

    /// This watcher hears nothing any more. `for_good`: nor will another.
    pub(super) fn ended(&self, id: i64, for_good: bool) -> Option<Arc<str>> {
        self.with(id, |name, watcher| {
            watcher.ready.send_replace((!for_good).then_some(false));
            watcher.listeners.iter().for_each(|listener| listener.hear_all());
            name.clone()
        })
    }

    /// No watcher hears anything any more.
    pub(super) fn all_ended(&self) {
        let ids: Vec<_> = lock(&self.state).names.keys().copied().collect();
        for id in ids {
            self.ended(id, false);
        }
    }

    /// These keys were deleted, each by its revision: all that the server told at a time, so no part of a revision.
    pub(super) fn deleted(&self, id: i64, gone: &[(&[u8], i64)]) {
        let taken = self.with(id, |name, watcher| {
            let taken = watcher.listeners.iter().filter(|listener| listener.hear(gone)).count();
            (taken > 0).then(|| name.clone())
        });
        if let Some(name) = taken.flatten() {
            self.context.suspect(&name);
        }
    }

    fn with<T>(&self, id: i64, work: impl FnOnce(&Arc<str>, &mut Watcher) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        let name = state.names.get(&id)?.clone();
        state.watchers.get_mut(&name).map(|watcher| work(&name, watcher))
    }

    /// Cancels watchers that nobody has used for a while, and says when to look again. When none is left, the orders
    /// end.
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
            if let Some(orders) = &state.orders {
                let _ = orders.send(Order::Cancel(id));
            }
        }
        if state.watchers.is_empty() {
            state.orders = None;
        }
        next
    }
}

impl Listener {
    /// Whether what this tells is that a lock was taken away.
    fn hear(&self, gone: &[(&[u8], i64)]) -> bool {
        let mut ear = lock(&self.ear);
        let woken = gone.iter().filter(|(key, rev)| self.heard(&mut ear, key, *rev)).count() > 0;
        drop(ear);
        if woken {
            self.ring.notify_one();
        }
        gone.iter().any(|(key, rev)| *key == self.own && *rev > self.held.load(Ordering::Acquire))
    }

    /// Takes in that a key was deleted. Whether that is cause to wake.
    fn heard(&self, ear: &mut Ear, key: &[u8], rev: i64) -> bool {
        let own = *key == *self.own && !mutant!("etcd-own-key-not-checked");
        let news = match ear {
            Ear::Open(heard) => {
                heard.push((key.to_vec(), rev));
                return false;
            }
            Ear::To(line) if rev > line.at => {
                let nearest = line.keys.first().is_some_and(|nearest| nearest == key);
                line.keys.retain(|other| other != key);
                match line.whole {
                    _ if own => Ear::Rung,
                    true if line.keys.is_empty() => Ear::First,
                    false if nearest => Ear::Rung,
                    _ => return false,
                }
            }
            Ear::First if own => Ear::Rung,
            _ => return false,
        };
        *ear = news;
        true
    }

    fn hear_all(&self) {
        *lock(&self.ear) = Ear::Rung;
        self.ring.notify_one();
    }
}

impl Interest {
    /// Notes what is deleted from now on. False: there is nothing that would tell.
    pub(super) fn listen(&self) -> bool {
        *lock(&self.listener.ear) = Ear::Open(Vec::new());
        *self.ready.borrow() == Some(true)
    }

    /// Wakes when these are gone, or our own is. False: there is cause to look again at once.
    pub(super) fn arm(&self, line: Line) -> bool {
        let mut ear = lock(&self.listener.ear);
        let Ear::Open(heard) = std::mem::replace(&mut *ear, Ear::Rung) else { return false };
        *ear = Ear::To(line);
        for (key, rev) in heard {
            self.listener.heard(&mut ear, &key, rev);
        }
        matches!(*ear, Ear::To(_))
    }

    /// Whether our key has become the first.
    pub(super) fn is_first(&self) -> bool {
        matches!(*lock(&self.listener.ear), Ear::First)
    }

    /// Resolves when what it was armed for has happened.
    pub(super) fn rung(&self) -> impl Future<Output = ()> + Send + 'static {
        let listener = self.listener.clone();
        async move {
            loop {
                let rung = listener.ring.notified();
                if matches!(*lock(&listener.ear), Ear::First | Ear::Rung) {
                    return;
                }
                rung.await;
            }
        }
    }

    /// Waits until the server watches. False: it doesn't, or can't.
    pub(super) async fn ready(&self, limit: Duration) -> bool {
        let mut ready = self.ready.clone();
        tokio::select! {
            biased;
            known = ready.wait_for(|ready| *ready != Some(false)) => known.is_ok_and(|known| *known == Some(true)),
            () = clock::sleep(limit) => false,
        }
    }

    /// Whether it is of the one with this key.
    pub(super) fn is_for(&self, own: &[u8]) -> bool {
        *self.listener.own == *own
    }

    /// Our own key is that of a lock that is held, since this revision.
    pub(super) fn hold(&self, rev: i64) {
        *lock(&self.listener.ear) = Ear::Closed;
        self.listener.held.store(rev, Ordering::Release);
    }

    /// It is given back, so its end is nobody's loss.
    pub(super) fn let_go(&self) {
        self.listener.held.store(i64::MAX, Ordering::Release);
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut state = lock(&self.watches.state);
        if let Some(watcher) = state.watchers.get_mut(&self.name) {
            watcher.listeners.retain(|listener| !Arc::ptr_eq(listener, &self.listener));
            if watcher.listeners.is_empty() {
                watcher.idle = Some(Instant::now());
                if let Some(orders) = &state.orders {
                    let _ = orders.send(Order::Sweep);
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
