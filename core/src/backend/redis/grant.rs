//! A grant: its proof, its renewal and its release.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::connection::Link;
use super::inbox::{Orphan, Registration};
use super::keys::Keys;
use super::orphans;
use super::script::{Script, read};
use crate::contract::{Claim, Grant, Released, Renewal};
use crate::error::{Error, Result};
use crate::net::in_doubt::{InDoubt, UnansweredRelease};
use crate::net::request::Limits;
use crate::runtime::{BoxFuture, lock};
use crate::timing::{millis, patience};

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
    unanswered: UnansweredRelease,
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
        let unanswered = UnansweredRelease::default();
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
                cmd.arg(self.link.shared.inbox.contender()).arg(&*self.id).arg(self.user());
            })
            .await;
        let answer = answer.inspect_err(|refusal| self.unanswered.note(refusal))?;
        let again = self.unanswered.may_have_released(&answer.unanswered) && !mutant!("redis-release-forgets-doubt");
        let found: String = read(answer.value)?;
        let mut in_doubt = std::mem::take(&mut *lock(&self.in_doubt));
        in_doubt.answered_on(answer.sent.conn);
        if !in_doubt.is_empty() {
            let (claim, user) = (self.id.clone(), self.claim.options.token.clone());
            orphans::take_back(&self.link, Orphan { keys: keys.clone(), claim, user, until: in_doubt.until() });
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
    let found = answer.map_err(Error::from);
    let found = found.and_then(|answer| Ok((answer.sent.at, read::<Vec<i64>>(answer.value)?)));
    match found {
        Ok((since, found)) if found.len() == due.len() => {
            let renewal = |(ours, (_, ttl)): (i64, &(&RedisGrant, Duration))| {
                Ok(if ours == 1 { Renewal::Kept { since, ttl: *ttl } } else { Renewal::Lost })
            };
            found.into_iter().zip(due).map(renewal).collect()
        }
        Ok((_, found)) => {
            let error = Error::unavailable(format!("{} answers to {} renewals", found.len(), due.len()));
            vec![Err(error); due.len()]
        }
        // Only the server's answer "not ours" ends a lease. Every other error is temporary.
        Err(error) => vec![Err(error.temporary(true)); due.len()],
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
