//! A grant: its proof, its renewal and its release.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::contender::{millis, patience};
use super::inbox::Registration;
use super::keys::Keys;
use super::link::{Limits, Link, Sent};
use super::orphans::Orphan;
use super::script::Script;
use crate::contract::Claim;
use crate::contract::{Grant, Released, Renewal};
use crate::error::Result;
use crate::runtime::BoxFuture;

/// Requests to acquire that have no answer and may still be applied.
#[derive(Debug, Default)]
pub(super) struct InDoubt {
    /// For each request the time of the server's clock until which it is accepted, and the number of its connection.
    requests: Vec<(i64, u64)>,
}

impl InDoubt {
    /// Adds a request that is accepted for `life` milliseconds after it was sent.
    pub(super) fn add(&mut self, sent: &Sent, life: i64) {
        self.requests.push((sent.server_ms + life, sent.conn));
    }

    /// Removes the requests of a connection on which a later one was answered: they were executed before it.
    pub(super) fn answered_on(&mut self, conn: u64) {
        self.requests.retain(|(_, sent_on)| *sent_on != conn);
    }

    /// Returns true if no request is in doubt.
    pub(super) fn is_none(&self) -> bool {
        self.requests.is_empty()
    }

    /// Returns the time of the server's clock until which a request may be accepted.
    pub(super) fn until(&self) -> i64 {
        self.requests.iter().map(|(until, _)| *until).max().unwrap_or(0)
    }
}

/// A lock that a claim holds.
pub(super) struct RedisGrant {
    link: Arc<Link>,
    claim: Claim,
    id: Arc<str>,
    keys: Arc<Keys>,
    fence: u64,
    /// The claim's registration, until the release is confirmed: its messages are for no other claim.
    _registration: Option<Registration>,
    in_doubt: Mutex<InDoubt>,
    /// True if a release was sent and had no answer.
    unanswered: AtomicBool,
}

impl RedisGrant {
    pub(super) fn new(
        link: Arc<Link>,
        claim: Claim,
        id: Arc<str>,
        keys: Arc<Keys>,
        fence: u64,
        registration: Option<Registration>,
        in_doubt: InDoubt,
    ) -> Self {
        let unanswered = AtomicBool::new(false);
        Self { link, claim, id, keys, fence, _registration: registration, in_doubt: Mutex::new(in_doubt), unanswered }
    }

    /// Returns the user's own token, or an empty text.
    fn user(&self) -> &str {
        self.claim.options.token.as_deref().unwrap_or_default()
    }

    /// Sends the release.
    async fn send_release(&self) -> Result<Released> {
        let limits = self.link.limits(patience(self.claim.options.ttl));
        let keys = &self.keys;
        let answer = self
            .link
            .run(Script::Release, limits, |_, cmd| {
                keys.add_to(cmd);
                cmd.arg(self.link.inbox.contender()).arg(&*self.id).arg(self.user());
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
        let mut in_doubt = std::mem::take(&mut *self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner));
        in_doubt.answered_on(answer.conn.number);
        if !in_doubt.is_none() {
            let (claim, user) = (self.id.clone(), self.claim.options.token.clone());
            self.link.take_back(Orphan { keys: keys.clone(), claim, user, until: in_doubt.until() });
        }
        // If the answer to an earlier release was lost, that release may have been applied.
        if found == "A" && !again {
            return Ok(Released::NotOurs);
        }
        Ok(Released::Yes)
    }
}

/// Renews these leases in one request.
pub(super) async fn renew(link: &Arc<Link>, due: &[(&RedisGrant, Duration)]) -> Vec<Result<Renewal>> {
    let shortest = due.iter().map(|(_, ttl)| *ttl).min().unwrap_or_default();
    let limits = Limits { patience: patience(shortest), budget: link.config.connect_timeout().min(shortest) };
    let answer = link
        .run(Script::Renew, limits, |_, cmd| {
            cmd.arg(due.len() * 2);
            for (held, _) in due {
                cmd.arg(&held.keys.key).arg(&held.keys.fence);
            }
            for (held, ttl) in due {
                cmd.arg(&*held.id).arg(held.user()).arg(millis(*ttl));
            }
        })
        .await;
    let found = answer.and_then(|answer| Ok((answer.sent.at, super::read::<Vec<i64>>(answer.value)?)));
    match found {
        Ok((since, found)) if found.len() == due.len() => {
            let renewal = |(ours, (_, ttl)): (i64, &(&RedisGrant, Duration))| {
                Ok(if ours == 1 { Renewal::Kept { since, ttl: *ttl } } else { Renewal::Lost })
            };
            found.into_iter().zip(due).map(renewal).collect()
        }
        Ok((_, found)) => {
            let error = crate::error::Error::unavailable(format!("{} answers to {} renewals", found.len(), due.len()));
            due.iter().map(|_| Err(error.clone())).collect()
        }
        // Only the server's answer "not ours" ends a lease. Every other error is temporary.
        Err(failure) => due.iter().map(|_| Err(failure.error.clone().temporary(true))).collect(),
    }
}

impl Grant for RedisGrant {
    fn fences(&self) -> Option<Range<u64>> {
        Some(self.fence..self.fence + 1)
    }

    fn release(&self) -> BoxFuture<'_, Result<Released>> {
        Box::pin(self.send_release())
    }
}

impl std::fmt::Debug for RedisGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisGrant").field("claim", &self.id).field("fence", &self.fence).finish_non_exhaustive()
    }
}
