//! Messages from the server: who they are for, and what they say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::reaper::Ghost;
use crate::backend::Alarm;
use crate::clock::Instant;
use crate::runtime::locked;

/// Every claim of this client that may still get a message.
#[derive(Debug)]
pub(super) struct Post {
    claims: Mutex<HashMap<u64, Arc<Mail>, rustc_hash::FxBuildHasher>>,
    /// Who waits for a key that a client other than dlock holds.
    watched: Mutex<HashMap<String, Arc<Mail>>>,
    contender: String,
    alarm: Alarm,
}

/// What came for one claim.
#[derive(Debug, Default)]
pub(super) struct Mail {
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

/// A claim's place in the post. From its first request to its very end: a message for a claim that is not in the post
/// is for one that has ended, and what it grants is given back.
#[derive(Debug)]
pub(super) struct Entry {
    post: Arc<Post>,
    nonce: u64,
    pub(super) mail: Arc<Mail>,
}

impl Mail {
    /// The grant, if one has come.
    pub(super) fn take(&self) -> Option<Handed> {
        locked(&self.handed).take()
    }

    /// Resolves when something has come since the last time.
    pub(super) async fn rung(self: Arc<Self>) {
        self.bell.notified().await;
    }
}

impl Post {
    pub(super) fn new(alarm: Alarm) -> Arc<Self> {
        Arc::new(Self { claims: Mutex::default(), watched: Mutex::default(), contender: alarm.contender(), alarm })
    }

    /// The channel on which this client is told.
    pub(super) fn channel(&self) -> String {
        format!("dlock:c:{}", self.contender)
    }

    pub(super) fn contender(&self) -> &str {
        &self.contender
    }

    pub(super) fn enter(self: &Arc<Self>, nonce: u64) -> Entry {
        let mail = Arc::<Mail>::default();
        locked(&self.claims).insert(nonce, mail.clone());
        Entry { post: self.clone(), nonce, mail }
    }

    /// Has a claim woken when this key changes.
    pub(super) fn watch(&self, key: &str, mail: &Arc<Mail>) {
        locked(&self.watched).insert(key.to_owned(), mail.clone());
    }

    /// Wakes every claim: whoever waits asks again.
    pub(super) fn ring_all(&self) {
        locked(&self.claims).values().for_each(|mail| mail.bell.notify_one());
    }

    /// Takes in what the server pushed.
    pub(super) fn push(&self, push: &PushInfo) -> Option<Ghost> {
        match (&push.kind, push.data.last()?) {
            (PushKind::Message, Value::BulkString(text)) => return self.message(std::str::from_utf8(text).ok()?),
            (PushKind::Invalidate, Value::Array(keys)) => keys.iter().for_each(|key| self.changed(key)),
            // The server has forgotten what it was asked to watch.
            (PushKind::Invalidate, _) => locked(&self.watched).drain().for_each(|(_, mail)| mail.bell.notify_one()),
            _ => {}
        }
        None
    }

    fn changed(&self, key: &Value) {
        let Value::BulkString(key) = key else { return };
        let Ok(key) = std::str::from_utf8(key) else { return };
        if let Some(mail) = locked(&self.watched).remove(key) {
            mail.bell.notify_one();
        }
    }

    /// `G claim fence stamp key`: granted; `W claim key`: look again; `X claim key`: taken away. Answers what was
    /// granted to a claim that has ended.
    pub(super) fn message(&self, text: &str) -> Option<Ghost> {
        let (what, rest) = text.split_once(' ')?;
        let (claim, rest) = rest.split_once(' ')?;
        let (contender, nonce) = claim.rsplit_once('.')?;
        let nonce = nonce.parse::<u64>().ok()?;
        if contender != self.contender {
            return None;
        }
        let mail = locked(&self.claims).get(&nonce).cloned();
        match (what, mail) {
            ("G", mail) => {
                let mut parts = rest.splitn(3, ' ');
                let mut number = || parts.next()?.parse::<u64>().ok();
                let (fence, since) = (number()?, Instant::from_nanos(number()?));
                let key = parts.next()?;
                let Some(mail) = mail else {
                    return (!mutant!("redis-unwanted-grant-kept")).then(|| Ghost::new(key, claim));
                };
                *locked(&mail.handed) = Some(Handed { fence, since });
                mail.bell.notify_one();
            }
            ("W", Some(mail)) => mail.bell.notify_one(),
            ("X", Some(_)) => self.alarm.raise(rest),
            _ => {}
        }
        None
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        locked(&self.post.claims).remove(&self.nonce);
        let mut watched = locked(&self.post.watched);
        if !watched.is_empty() {
            watched.retain(|_, mail| !Arc::ptr_eq(mail, &self.mail));
        }
    }
}
