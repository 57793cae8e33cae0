//! Messages from the server, and the claims that they are for.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::keys::Keys;
use crate::clock::Instant;
use crate::contract::Context;
use crate::runtime::lock;

/// The claims of this client that may still get a message.
#[derive(Debug)]
pub(super) struct Inbox {
    claims: Mutex<Claims>,
    /// The waiters for keys that a client other than dlock holds.
    watched: Mutex<HashMap<String, Arc<Delivery>>>,
    contender: String,
    context: Context,
}

#[derive(Debug, Default)]
struct Claims {
    live: HashMap<u64, Arc<Delivery>, rustc_hash::FxBuildHasher>,
    /// Claims that were in a queue and have ended, oldest first. A grant to one of them is released; a message for a
    /// claim that never was is ignored.
    ended: VecDeque<(u64, Arc<Delivery>, Instant)>,
}

/// The time for which a claim that has ended is remembered: longer than a place in the queue lives without a refresh.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The number of ended claims that are remembered.
const REMEMBERED_COUNT: usize = 1_000;

/// The messages for one claim, and the requests by which they are checked.
#[derive(Debug)]
pub(super) struct Delivery {
    keys: Arc<Keys>,
    /// The times of its requests, each kept until a grant by it would be over.
    sent: Mutex<Vec<Instant>>,
    queued: AtomicBool,
    handover: Mutex<Option<Handover>>,
    notify: Notify,
}

/// A grant by hand-over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    pub(super) fence: u64,
    /// The time when the request was sent that put the claim into the queue or refreshed it.
    pub(super) since: Instant,
}

/// A claim's registration at the inbox, from its first request to its end.
#[derive(Debug)]
pub(super) struct Registration {
    inbox: Arc<Inbox>,
    nonce: u64,
    pub(super) delivery: Arc<Delivery>,
}

/// A claim that has ended, and the time of the server's clock until which one of its requests may be accepted.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) keys: Arc<Keys>,
    pub(super) claim: Arc<str>,
    /// The user's own token.
    pub(super) user: Option<Arc<str>>,
    pub(super) until: i64,
}

impl Orphan {
    /// Returns the orphan of a claim whose grant arrived after its end.
    pub(super) fn new(keys: Arc<Keys>, claim: &str) -> Self {
        Self { keys, claim: claim.into(), user: None, until: 0 }
    }
}

impl Delivery {
    fn new(keys: Arc<Keys>) -> Self {
        let (sent, handover, notify) = (Mutex::default(), Mutex::default(), Notify::new());
        Self { keys, sent, queued: AtomicBool::new(false), handover, notify }
    }

    /// Notes a request that is sent now, by which the lock may be handed over for the time `life`.
    pub(super) fn add_request(&self, at: Instant, life: Duration) {
        let mut sent = lock(&self.sent);
        sent.retain(|sent| !sent.plus(life).passed());
        sent.push(at);
    }

    /// Notes that the claim may be in the queue.
    pub(super) fn set_queued(&self) {
        self.queued.store(true, Ordering::Relaxed);
    }

    /// Returns the time of the request with this stamp, which a message alone can't prove. One request leads to one
    /// grant, so each stamp counts once.
    fn take_request(&self, stamp: Instant) -> Option<Instant> {
        let mut sent = lock(&self.sent);
        let at = sent.iter().copied().find(|at| *at == stamp)?;
        sent.retain(|other| *other > at);
        Some(at)
    }

    /// Takes the grant, if one has come.
    pub(super) fn take(&self) -> Option<Handover> {
        lock(&self.handover).take()
    }

    /// Resolves when a message has come since the last time.
    pub(super) async fn notified(self: Arc<Self>) {
        self.notify.notified().await;
    }
}

impl Inbox {
    pub(super) fn new(context: Context) -> Arc<Self> {
        Arc::new(Self { claims: Mutex::default(), watched: Mutex::default(), contender: context.contender(), context })
    }

    /// Returns the channel of this client.
    pub(super) fn channel(&self) -> String {
        format!("dlock:c:{}", self.contender)
    }

    /// Returns this client's name in the queues.
    pub(super) fn contender(&self) -> &str {
        &self.contender
    }

    /// Reports a server that can't keep what a lock promises.
    pub(super) fn warn(&self, note: &str) {
        self.context.warn(note);
    }

    /// Registers a claim.
    pub(super) fn register(self: &Arc<Self>, nonce: u64, keys: &Arc<Keys>) -> Registration {
        let delivery = Arc::new(Delivery::new(keys.clone()));
        lock(&self.claims).live.insert(nonce, delivery.clone());
        Registration { inbox: self.clone(), nonce, delivery }
    }

    /// Wakes this claim when the key changes.
    pub(super) fn watch(&self, key: &str, delivery: &Arc<Delivery>) {
        lock(&self.watched).insert(key.to_owned(), delivery.clone());
    }

    /// Wakes every claim, so that every waiter asks again.
    pub(super) fn notify_all(&self) {
        lock(&self.claims).live.values().for_each(|delivery| delivery.notify.notify_one());
    }

    /// Reads a push of the server. Returns the orphan that it leaves.
    pub(super) fn push(&self, push: &PushInfo) -> Option<Orphan> {
        match (&push.kind, push.data.last()?) {
            (PushKind::Message, Value::BulkString(text)) => return self.message(std::str::from_utf8(text).ok()?),
            (PushKind::Invalidate, Value::Array(keys)) => keys.iter().for_each(|key| self.changed(key)),
            // The server has forgotten the keys that it was asked to watch.
            (PushKind::Invalidate, _) => {
                lock(&self.watched).drain().for_each(|(_, delivery)| delivery.notify.notify_one());
            }
            _ => {}
        }
        None
    }

    /// Wakes the waiter for a key that has changed.
    fn changed(&self, key: &Value) {
        let Value::BulkString(key) = key else { return };
        let Ok(key) = std::str::from_utf8(key) else { return };
        if let Some(delivery) = lock(&self.watched).remove(key) {
            delivery.notify.notify_one();
        }
    }

    /// Reads a message. `G claim fence stamp key`: granted; `W claim key`: try again; `X claim key`: taken away.
    /// Anybody may write to the channel, so a grant counts only if its stamp and key are those of a request of this
    /// claim; every other message only makes the claim ask again. Returns an orphan if a claim that has ended was
    /// granted the lock.
    pub(super) fn message(&self, text: &str) -> Option<Orphan> {
        let (what, rest) = text.split_once(' ')?;
        let (claim, rest) = rest.split_once(' ')?;
        let (contender, nonce) = claim.rsplit_once('.')?;
        let nonce = nonce.parse::<u64>().ok()?;
        if contender != self.contender {
            return None;
        }
        let (delivery, lives) = lock(&self.claims).find(nonce)?;
        match what {
            "G" => {
                let mut parts = rest.splitn(3, ' ');
                let mut number = || parts.next()?.parse::<u64>().ok();
                let (fence, stamp) = (number().filter(|fence| i64::try_from(*fence).is_ok()), number());
                let ours = parts.next() == Some(&*delivery.keys.key);
                let stamp = stamp.map(Instant::from_nanos).filter(|_| ours);
                let since = if mutant!("redis-message-believed") {
                    stamp
                } else {
                    stamp.and_then(|s| delivery.take_request(s))
                };
                if !lives {
                    since.filter(|_| !mutant!("redis-unwanted-grant-kept"))?;
                    return Some(Orphan::new(delivery.keys.clone(), claim));
                }
                if let Some((fence, since)) = fence.zip(since) {
                    *lock(&delivery.handover) = Some(Handover { fence, since });
                }
                delivery.notify.notify_one();
            }
            "W" => delivery.notify.notify_one(),
            "X" if lives && rest == delivery.keys.key => self.context.suspect(rest),
            _ => {}
        }
        None
    }
}

impl Claims {
    /// Returns a claim of ours, and true if it still lives.
    fn find(&self, nonce: u64) -> Option<(Arc<Delivery>, bool)> {
        if let Some(delivery) = self.live.get(&nonce) {
            return Some((delivery.clone(), true));
        }
        self.ended.iter().find(|(ended, ..)| *ended == nonce).map(|(_, delivery, _)| (delivery.clone(), false))
    }

    /// Ends a claim. It is remembered if it was in a queue.
    fn end(&mut self, nonce: u64) {
        let Some(delivery) = self.live.remove(&nonce).filter(|delivery| delivery.queued.load(Ordering::Relaxed)) else {
            return;
        };
        self.ended.push_back((nonce, delivery, Instant::now()));
        while self.ended.len() > REMEMBERED_COUNT
            || self.ended.front().is_some_and(|(_, _, at)| at.plus(REMEMBERED).passed())
        {
            self.ended.pop_front();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.inbox.claims).end(self.nonce);
        let mut watched = lock(&self.inbox.watched);
        if !watched.is_empty() {
            watched.retain(|_, delivery| !Arc::ptr_eq(delivery, &self.delivery));
        }
    }
}
