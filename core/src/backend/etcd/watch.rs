//! Watchers: one for each lock that is waited for, and the subscriptions to its deletions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use etcd_client::{EventType, WatchResponse};
use tokio::sync::{mpsc, watch};

use super::connection::Link;
use super::listener::Listener;
use super::watch_stream::{Stream, WatchCommand};
use crate::clock::{self, Instant};
use crate::contract::Context;
use crate::net::request::answer_within;
use crate::runtime::{self, lock};
use crate::timing::Backoff;

/// The time for which an unused watcher is kept, so that the next contender of a busy lock finds it.
const LINGER: Duration = Duration::from_secs(1);

/// The time for opening a stream.
const OPENING: Duration = Duration::from_secs(5);
/// The longest pause between two tries to open a stream.
const PAUSE: Duration = Duration::from_secs(1);

/// The watchers of a client.
pub(super) struct Watches {
    link: Arc<Link>,
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

/// A claim's subscription to the deletions of a lock's keys. It ends when it is dropped.
pub(super) struct Subscription {
    watches: Arc<Watches>,
    name: Arc<str>,
    pub(super) listener: Arc<Listener>,
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
        let listener = Arc::new(Listener::new(own));
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
        runtime::spawn(run(Arc::downgrade(self), received));
    }

    /// Returns all watchers, for a stream that starts.
    fn all(&self) -> Vec<(i64, Arc<str>)> {
        let state = lock(&self.state);
        state.watchers.iter().map(|(name, watcher)| (watcher.id, name.clone())).collect()
    }

    /// Notes that the server watches from now on.
    fn created(&self, id: i64) {
        self.with(id, |_, watcher| watcher.ready.send_replace(Some(true)));
    }

    /// Notes that this watcher gets no events any more. `for_good`: no other will either.
    fn ended(&self, id: i64, for_good: bool) -> Option<Arc<str>> {
        self.with(id, |name, watcher| {
            watcher.ready.send_replace((!for_good).then_some(false));
            watcher.listeners.iter().for_each(|listener| listener.on_watch_end());
            name.clone()
        })
    }

    /// Notes that no watcher gets events any more.
    fn all_ended(&self) {
        let ids: Vec<_> = lock(&self.state).names.keys().copied().collect();
        for id in ids {
            self.ended(id, false);
        }
    }

    /// Passes on the deletions of one answer, each with its revision. An answer contains whole revisions.
    fn deleted(&self, id: i64, gone: &[(&[u8], i64)]) {
        let taken = self.with(id, |name, watcher| {
            let taken = watcher.listeners.iter().filter(|listener| listener.on_delete(gone)).count();
            (taken > 0).then(|| name.clone())
        });
        if let Some(name) = taken.flatten() {
            self.suspect(&name);
        }
    }

    /// Reports that a lock may have been taken away.
    pub(super) fn suspect(&self, name: &str) {
        self.context.suspect(name);
    }

    /// Runs `work` on a watcher.
    fn with<T>(&self, id: i64, work: impl FnOnce(&Arc<str>, &mut Watcher) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        let name = state.names.get(&id)?.clone();
        state.watchers.get_mut(&name).map(|watcher| work(&name, watcher))
    }

    /// Handles an answer.
    async fn receive(&self, stream: &mut Stream, response: &WatchResponse) -> Option<()> {
        let id = response.watch_id();
        let deletions = response.events().iter().filter(|event| event.event_type() == EventType::Delete);
        let gone: Vec<_> =
            deletions.filter_map(|event| Some((event.kv()?.key(), event.kv()?.mod_revision()))).collect();
        self.deleted(id, &gone);
        if response.canceled() {
            // Cancelled by this client, or by the server after a compaction or for lack of permission.
            if !stream.cancelled(id) {
                return Some(());
            }
            let forbidden = response.compact_revision() == 0 && response.cancel_reason().contains("permission");
            let name = self.ended(id, forbidden)?;
            return if forbidden { Some(()) } else { stream.watch(id, &name).await };
        }
        if response.created() {
            self.created(id);
        }
        Some(())
    }

    /// Cancels watchers that were not used for a while, and returns the time of the next sweep. When none is left, the
    /// commands end.
    fn sweep(&self) -> Instant {
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

/// Keeps a stream for as long as there is something to watch.
async fn run(watches: Weak<Watches>, mut commands: mpsc::UnboundedReceiver<WatchCommand>) {
    let mut pauses = Backoff::up_to(PAUSE);
    loop {
        let Some(this) = watches.upgrade() else { return };
        this.sweep();
        if commands.is_closed() {
            return;
        }
        let opened = answer_within(OPENING, Stream::open(&this.link, || this.all())).await.flatten();
        drop(this);
        if let Some(mut stream) = opened {
            pauses.reset();
            serve(&mut stream, &watches, &mut commands).await;
            if commands.is_closed() {
                return;
            }
            // Every waiter reads for itself, and again when there is a stream.
            let Some(this) = watches.upgrade() else { return };
            this.all_ended();
        }
        clock::sleep(pauses.next()).await;
    }
}

/// Serves the stream until it breaks, its connection is given up, or there is nothing left to watch.
async fn serve(stream: &mut Stream, watches: &Weak<Watches>, commands: &mut mpsc::UnboundedReceiver<WatchCommand>) {
    loop {
        let Some(this) = watches.upgrade() else { return };
        let sweep = this.sweep();
        if commands.is_closed() {
            return;
        }
        drop(this);
        let done = tokio::select! {
            biased;
            response = stream.next() => match (response, watches.upgrade()) {
                (Some(response), Some(watches)) => watches.receive(stream, &response).await,
                _ => None,
            },
            command = commands.recv() => match command {
                Some(command) => stream.execute(command).await,
                None => None,
            },
            () = clock::sleep_until(sweep) => Some(()),
        };
        if done.is_none() {
            return;
        }
    }
}

impl Subscription {
    /// Collects deletions from now on. Returns false if the server doesn't watch.
    pub(super) fn collect(&self) -> bool {
        self.listener.collect();
        *self.ready.borrow() == Some(true)
    }

    /// Waits until the server watches. Returns false if it doesn't in time, or refuses.
    pub(super) async fn ready(&self, limit: Duration) -> bool {
        let mut ready = self.ready.clone();
        let known = answer_within(limit, ready.wait_for(|ready| *ready != Some(false))).await;
        known.is_some_and(|known| known.is_ok_and(|known| *known == Some(true)))
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
