//! Events for logs and metrics: a stream to each subscriber. It costs nothing while there is none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::Result;
use crate::runtime::{PerProcess, lock, threads};

/// One thing that happened to one claim.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Event {
    /// The kind of the event.
    pub kind: EventKind,
    /// The backend's name.
    pub backend: &'static str,
    /// The user's key. User data: print it with [`crate::show`].
    pub key: Arc<str>,
}

/// The kinds of events.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The lock is busy, and the caller waits for it.
    Waiting,
    /// Granted, after so long a wait.
    Granted {
        /// From the call to the grant.
        wait: Duration,
    },
    /// Not obtained within the wait.
    TimedOut {
        /// From the call to its end.
        wait: Duration,
    },
    /// Renewed by the watchdog or by hand.
    Renewed,
    /// A renewal had no answer; the lease counts on until its end.
    RenewalFailed {
        /// The reason.
        error: String,
    },
    /// Lost, after having been held so long.
    Lost {
        /// From the grant to the loss.
        held: Duration,
    },
    /// Released, but not confirmed by the backend in time: the release goes on in the background, and the lock ends by
    /// its ttl at the latest.
    Unconfirmed,
    /// Something in the configuration that was not taken into account, and why. Concerns no key.
    Ignored {
        /// The fact and the reason.
        note: String,
    },
    /// The backend is configured so that it can break what a lock promises. Concerns no key.
    Warning {
        /// The problem and the remedy.
        note: String,
    },
    /// Code of the user's that was called, as the hook of a lost lease, panicked. The panic was caught. Concerns no key
    /// where it was called for none.
    Panicked {
        /// The text of the panic.
        text: String,
    },
    /// Released, after having been held so long.
    Released {
        /// From the grant to the release.
        held: Duration,
    },
}

/// Tells what of the configuration was not taken into account.
pub(crate) fn ignored(note: &str) {
    emit(|| Event { kind: EventKind::Ignored { note: note.to_owned() }, backend: "", key: "".into() });
}

/// Tells of a backend that can't keep what a lock promises as it is configured.
pub(crate) fn warn(backend: &'static str, note: &str) {
    emit(|| Event { kind: EventKind::Warning { note: note.to_owned() }, backend, key: "".into() });
}

impl EventKind {
    pub(crate) fn of(self, backend: &'static str, key: &Arc<str>) -> Event {
        Event { kind: self, backend, key: key.clone() }
    }
}

/// The number of events that may wait for a slow subscriber before further ones are dropped and counted.
const BACKLOG: usize = 10_000;

static ANY: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static SUBSCRIBERS: PerProcess<Mutex<Vec<SyncSender<Event>>>> = PerProcess::new();

/// Calls `f` with every event from now on, in order, on a thread of its own. A subscriber that falls behind by
/// more than 10,000 events misses some ([`dropped`]); no lock waits for it. One that panics misses that event. Ends
/// with the process; a child of fork begins with none.
///
/// # Errors
/// `Backend`, temporary, when there is no thread left for it.
pub fn subscribe(f: impl Fn(Event) + Send + 'static) -> Result<()> {
    let (send, receive) = sync_channel::<Event>(BACKLOG);
    let each = move |event| drop(catch_unwind(AssertUnwindSafe(|| f(event))));
    threads::start("dlock-events", move || receive.into_iter().for_each(each))
        .map_err(|error| threads::exhausted("no thread for the events can be started", &error))?;
    lock(SUBSCRIBERS.get(Mutex::default)).push(send);
    ANY.store(true, Ordering::Release);
    Ok(())
}

/// Returns how many events were dropped since the start because a subscriber was too slow.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

pub(crate) fn emit(event: impl FnOnce() -> Event) {
    if !ANY.load(Ordering::Relaxed) {
        return;
    }
    let Some(subscribers) = SUBSCRIBERS.peek() else { return };
    let event = event();
    for subscriber in lock(subscribers).iter() {
        if subscriber.try_send(event.clone()).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}
