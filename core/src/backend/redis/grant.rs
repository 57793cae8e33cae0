//! A grant: what proves it, and how it is renewed and given back.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::contender::{millis, patience};
use super::inbox::Entry;
use super::keys::Names;
use super::link::{Limits, Link, Sent};
use super::orphans::Ghost;
use super::script::Script;
use crate::contract::Claim;
use crate::contract::{Grant, Released, Renewal};
use crate::error::Result;
use crate::runtime::BoxFuture;

/// Requests to acquire that have no answer and may still be done.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Until when by the server's clock they are accepted, and on which connections they were sent.
    requests: Vec<(i64, u64)>,
}

impl Doubt {
    /// `life`: for how many milliseconds from its sending it is accepted.
    pub(super) fn add(&mut self, sent: &Sent, life: i64) {
        self.requests.push((sent.server_ms + life, sent.conn));
    }

    /// Something later was answered on this connection, so what was sent there before is done.
    pub(super) fn settled_on(&mut self, conn: u64) {
        self.requests.retain(|(_, sent_on)| *sent_on != conn);
    }

    pub(super) fn is_none(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn till(&self) -> i64 {
        self.requests.iter().map(|(till, _)| *till).max().unwrap_or(0)
    }
}

pub(super) struct Held {
    link: Arc<Link>,
    claim: Claim,
    id: Arc<str>,
    names: Arc<Names>,
    fence: u64,
    /// In the post until the release is confirmed: a message for it is for nobody else.
    _entry: Option<Entry>,
    doubt: Mutex<Doubt>,
    /// Whether a release was sent and had no answer.
    unanswered: AtomicBool,
}

impl Held {
    pub(super) fn new(
        link: Arc<Link>,
        claim: Claim,
        id: Arc<str>,
        names: Arc<Names>,
        fence: u64,
        entry: Option<Entry>,
        doubt: Doubt,
    ) -> Self {
        let unanswered = AtomicBool::new(false);
        Self { link, claim, id, names, fence, _entry: entry, doubt: Mutex::new(doubt), unanswered }
    }

    /// The user's own token; empty: none.
    fn user(&self) -> &str {
        self.claim.options.token.as_deref().unwrap_or_default()
    }

    async fn give(&self) -> Result<Released> {
        let limits = self.link.limits(patience(self.claim.options.ttl));
        let names = &self.names;
        let answer = self
            .link
            .run(Script::Give, limits, |_, cmd| {
                names.add_to(cmd);
                cmd.arg(self.link.post.contender()).arg(&*self.id).arg(self.user());
            })
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                if !failure.unanswered.is_empty() {
                    self.unanswered.store(true, Ordering::Release);
                }
                return Err(failure.error);
            }
        };
        let again = !answer.unanswered.is_empty() || self.unanswered.load(Ordering::Acquire);
        let again = again && !mutant!("redis-release-forgets-doubt");
        let found: String = super::read(answer.value).map_err(|failure| failure.error)?;
        let mut doubt = std::mem::take(&mut *self.doubt.lock().unwrap_or_else(PoisonError::into_inner));
        doubt.settled_on(answer.conn.number);
        if !doubt.is_none() {
            let (claim, user) = (self.id.clone(), self.claim.options.token.clone());
            self.link.reap(Ghost { names: names.clone(), claim, user, till: doubt.till() });
        }
        // Not ours any more, after an earlier release whose answer was lost: that one gave it back.
        if found == "A" && !again {
            return Ok(Released::NotOurs);
        }
        Ok(Released::Yes)
    }
}

/// Renews these, all in one request.
pub(super) async fn renew(link: &Arc<Link>, due: &[(&Held, Duration)]) -> Vec<Result<Renewal>> {
    let shortest = due.iter().map(|(_, ttl)| *ttl).min().unwrap_or_default();
    let limits = Limits { patience: patience(shortest), budget: link.config.connect_timeout().min(shortest) };
    let answer = link
        .run(Script::Renew, limits, |_, cmd| {
            cmd.arg(due.len() * 2);
            for (held, _) in due {
                cmd.arg(&held.names.key).arg(&held.names.fence);
            }
            for (held, ttl) in due {
                cmd.arg(&*held.id).arg(held.user()).arg(millis(*ttl));
            }
        })
        .await;
    let found = answer.and_then(|answer| Ok((answer.sent.at, super::read::<Vec<i64>>(answer.value)?)));
    match found {
        Ok((since, found)) if found.len() == due.len() => {
            let renewal = |(ours, (_, ttl)): (i64, &(&Held, Duration))| {
                Ok(if ours == 1 { Renewal::Kept { since, ttl: *ttl } } else { Renewal::Lost })
            };
            found.into_iter().zip(due).map(renewal).collect()
        }
        Ok((_, found)) => {
            let error = crate::error::Error::unavailable(format!("{} answers to {} renewals", found.len(), due.len()));
            due.iter().map(|_| Err(error.clone())).collect()
        }
        // Only the server's word ends a lease: whatever else it said is asked again.
        Err(failure) => due.iter().map(|_| Err(failure.error.clone().temporary(true))).collect(),
    }
}

impl Grant for Held {
    fn fences(&self) -> Option<Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.give())
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("claim", &self.id).field("fence", &self.fence).finish_non_exhaustive()
    }
}
