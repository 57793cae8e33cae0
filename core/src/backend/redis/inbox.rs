//! Messages from the server: who they are for, and what they say.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::keys::Names;
use super::orphans::Ghost;
use crate::clock::Instant;
use crate::contract::Context;
use crate::runtime::lock;

/// Every claim of this client that may still get a message.
#[derive(Debug)]
pub(super) struct Post {
    claims: Mutex<Claims>,
    /// Who waits for a key that a client other than dlock holds.
    watched: Mutex<HashMap<String, Arc<Mail>>>,
    contender: String,
    context: Context,
}

#[derive(Debug, Default)]
struct Claims {
    live: HashMap<u64, Arc<Mail>, rustc_hash::FxBuildHasher>,
    /// Those that stood in a queue and have ended, in the order in which they did. What is handed to one of them is given
    /// back; nothing is given back for a claim that never was.
    ended: VecDeque<(u64, Arc<Mail>, Instant)>,
}

/// How long a claim that has ended is remembered: longer than a place in the queue lives without it.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many of them.
const REMEMBERED_COUNT: usize = 1_000;

/// What came for one claim, and what of it can be true.
#[derive(Debug)]
pub(super) struct Mail {
    names: Arc<Names>,
    /// When its requests were sent, each until what is granted by it would be over.
    sent: Mutex<Vec<Instant>>,
    queued: AtomicBool,
    handed: Mutex<Option<Handed>>,
    bell: Notify,
}

/// A grant by hand-over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    pub(super) fence: u64,
    /// When the request was sent by which the claim stood in the queue.
    pub(super) since: Instant,
}

/// A claim's place in the post, from its first request to its very end.
#[derive(Debug)]
pub(super) struct Entry {
    post: Arc<Post>,
    nonce: u64,
    pub(super) mail: Arc<Mail>,
}

impl Mail {
    fn new(names: Arc<Names>) -> Self {
        let (sent, handed, bell) = (Mutex::default(), Mutex::default(), Notify::new());
        Self { names, sent, queued: AtomicBool::new(false), handed, bell }
    }

    /// A request is being sent by which it may be handed the lock, for so long from now on.
    pub(super) fn sends(&self, at: Instant, life: Duration) {
        let mut sent = lock(&self.sent);
        sent.retain(|sent| !sent.plus(life).passed());
        sent.push(at);
    }

    /// It may stand in the queue.
    pub(super) fn queues(&self) {
        self.queued.store(true, Ordering::Relaxed);
    }

    /// When the request with this stamp was sent: known here, and not believed of a message. No two grants come of one
    /// request, so each is told of once.
    fn was_sent(&self, stamp: Instant) -> Option<Instant> {
        let mut sent = lock(&self.sent);
        let at = sent.iter().copied().find(|at| *at == stamp)?;
        sent.retain(|other| *other > at);
        Some(at)
    }

    /// The grant, if one has come.
    pub(super) fn take(&self) -> Option<Handed> {
        lock(&self.handed).take()
    }

    /// Resolves when something has come since the last time.
    pub(super) async fn rung(self: Arc<Self>) {
        self.bell.notified().await;
    }
}

impl Post {
    pub(super) fn new(context: Context) -> Arc<Self> {
        Arc::new(Self { claims: Mutex::default(), watched: Mutex::default(), contender: context.contender(), context })
    }

    /// The channel on which this client is told.
    pub(super) fn channel(&self) -> String {
        format!("dlock:c:{}", self.contender)
    }

    pub(super) fn contender(&self) -> &str {
        &self.contender
    }

    pub(super) fn warn(&self, note: &str) {
        self.context.warn(note);
    }

    pub(super) fn enter(self: &Arc<Self>, nonce: u64, names: &Arc<Names>) -> Entry {
        let mail = Arc::new(Mail::new(names.clone()));
        lock(&self.claims).live.insert(nonce, mail.clone());
        Entry { post: self.clone(), nonce, mail }
    }

    /// Has a claim woken when this key changes.
    pub(super) fn watch(&self, key: &str, mail: &Arc<Mail>) {
        lock(&self.watched).insert(key.to_owned(), mail.clone());
    }

    /// Wakes every claim: whoever waits asks again.
    pub(super) fn ring_all(&self) {
        lock(&self.claims).live.values().for_each(|mail| mail.bell.notify_one());
    }

    /// Takes in what the server pushed.
    pub(super) fn push(&self, push: &PushInfo) -> Option<Ghost> {
        match (&push.kind, push.data.last()?) {
            (PushKind::Message, Value::BulkString(text)) => return self.message(std::str::from_utf8(text).ok()?),
            (PushKind::Invalidate, Value::Array(keys)) => keys.iter().for_each(|key| self.changed(key)),
            // The server has forgotten what it was asked to watch.
            (PushKind::Invalidate, _) => lock(&self.watched).drain().for_each(|(_, mail)| mail.bell.notify_one()),
            _ => {}
        }
        None
    }

    fn changed(&self, key: &Value) {
        let Value::BulkString(key) = key else { return };
        let Ok(key) = std::str::from_utf8(key) else { return };
        if let Some(mail) = lock(&self.watched).remove(key) {
            mail.bell.notify_one();
        }
    }

    /// `G claim fence stamp key`: granted; `W claim key`: look again; `X claim key`: taken away. Anybody may write to the
    /// channel, so only the stamp of a request that this claim has sent for this key counts; all else has it look again at
    /// the most. Answers what was granted to a claim that has ended.
    pub(super) fn message(&self, text: &str) -> Option<Ghost> {
        let (what, rest) = text.split_once(' ')?;
        let (claim, rest) = rest.split_once(' ')?;
        let (contender, nonce) = claim.rsplit_once('.')?;
        let nonce = nonce.parse::<u64>().ok()?;
        if contender != self.contender {
            return None;
        }
        let (mail, lives) = lock(&self.claims).find(nonce)?;
        match what {
            "G" => {
                let mut parts = rest.splitn(3, ' ');
                let mut number = || parts.next()?.parse::<u64>().ok();
                let (fence, stamp) = (number().filter(|fence| i64::try_from(*fence).is_ok()), number());
                let ours = parts.next() == Some(&*mail.names.key);
                let stamp = stamp.map(Instant::from_nanos).filter(|_| ours);
                let since =
                    if mutant!("redis-message-believed") { stamp } else { stamp.and_then(|s| mail.was_sent(s)) };
                if !lives {
                    since.filter(|_| !mutant!("redis-unwanted-grant-kept"))?;
                    return Some(Ghost::new(mail.names.clone(), claim));
                }
                if let Some((fence, since)) = fence.zip(since) {
                    *lock(&mail.handed) = Some(Handed { fence, since });
                }
                mail.bell.notify_one();
            }
            "W" => mail.bell.notify_one(),
            "X" if lives && rest == mail.names.key => self.context.suspect(rest),
            _ => {}
        }
        None
    }
}

impl Claims {
    /// A claim of ours, and whether it still lives.
    fn find(&self, nonce: u64) -> Option<(Arc<Mail>, bool)> {
        if let Some(mail) = self.live.get(&nonce) {
            return Some((mail.clone(), true));
        }
        self.ended.iter().find(|(ended, ..)| *ended == nonce).map(|(_, mail, _)| (mail.clone(), false))
    }

    fn end(&mut self, nonce: u64) {
        let Some(mail) = self.live.remove(&nonce).filter(|mail| mail.queued.load(Ordering::Relaxed)) else { return };
        self.ended.push_back((nonce, mail, Instant::now()));
        while self.ended.len() > REMEMBERED_COUNT
            || self.ended.front().is_some_and(|(_, _, at)| at.plus(REMEMBERED).passed())
        {
            self.ended.pop_front();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.post.claims).end(self.nonce);
        let mut watched = lock(&self.post.watched);
        if !watched.is_empty() {
            watched.retain(|_, mail| !Arc::ptr_eq(mail, &self.mail));
        }
    }
}
