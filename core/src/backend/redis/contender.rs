//! A contender: one claim, from its first request to a grant or its withdrawal.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::connection::{Conn, Link};
use super::grant::RedisGrant;
use super::inbox::{Orphan, Registration};
use super::keys::Keys;
use super::orphans::{self, withdraw};
use super::request::Answer;
use super::script::{Script, no_lock};
use crate::clock::Instant;
use crate::contract::{Attempt, Claim, Contender, RetryHint};
use crate::error::{Error, Result};
use crate::net::in_doubt::InDoubt;
use crate::net::request::Limits;
use crate::runtime::BoxFuture;
use crate::timing::{self, Backoff, PATIENCE, millis, patience};

/// The shortest time for which a request may be accepted, so that a small error of the estimated clock refuses none.
const LEAST_LIFE: Duration = Duration::from_millis(250);
/// The longest time for which a request may be accepted.
const LIFE: Duration = Duration::from_secs(5);
/// The time for which a waiter that no message reaches keeps its turn. It asks again after 250 ms at the latest.
const TURN_KEPT: Duration = Duration::from_secs(2);

/// A claim that asks for its lock.
pub(super) struct RedisContender {
    link: Arc<Link>,
    claim: Claim,
    id: Arc<str>,
    keys: Arc<Keys>,
    registration: Option<Registration>,
    /// The time of arrival in the queue, once the server has returned it.
    ticket: u64,
    /// True if the claim may be in the queue.
    queued: bool,
    in_doubt: InDoubt,
    polls: Backoff,
}

impl RedisContender {
    pub(super) fn new(link: Arc<Link>, claim: Claim) -> Self {
        let keys = Arc::new(Keys::new(&claim.options.name));
        let id = format!("{}.{}", link.shared.inbox.contender(), claim.nonce).into();
        Self {
            link,
            claim,
            id,
            keys,
            registration: None,
            ticket: 0,
            queued: false,
            in_doubt: InDoubt::default(),
            polls: Backoff::polls(),
        }
    }

    /// Tries once.
    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let link = self.link.clone();
        let registration =
            self.registration.get_or_insert_with(|| link.shared.inbox.register(self.claim.nonce, &self.keys));
        if let Some(handover) = registration.delivery.take() {
            let since = if mutant!("redis-handed-over-from-receipt") { Instant::now() } else { handover.since };
            // A grant that comes later may have ended, and may have been given to this claim again with another fence.
            if !self.is_late(since) || mutant!("redis-handed-over-late-not-renewed") {
                return Ok(self.granted(handover.fence, since));
            }
        }
        // A server whose clock has moved refuses the first request as late and returns its time. A foreign key may be
        // gone again.
        for _ in 0..3 {
            let answer = self.acquire(budget).await?;
            match answer.value {
                Value::BulkString(fence) => {
                    let fence = std::str::from_utf8(&fence).ok().and_then(|fence| fence.parse().ok());
                    let fence = fence.ok_or_else(|| Error::refused("Redis answered with no fencing token"))?;
                    return Ok(self.granted(fence, answer.sent.at));
                }
                Value::Array(parts) => match self.refused(parts, &answer.conn).await? {
                    Some(attempt) => return Ok(attempt),
                    None => continue,
                },
                other => return Err(unexpected(&other)),
            }
        }
        Err(Error::unavailable(format!("the clock of Redis at {} is not to be followed", link.names())))
    }

    /// Sends the request to acquire.
    async fn acquire(&mut self, budget: Duration) -> Result<Answer> {
        let options = &self.claim.options;
        let life = i64::try_from(budget.clamp(LEAST_LIFE, LIFE).as_millis()).unwrap_or(i64::MAX);
        let limits = Limits { patience: patience(options.ttl), budget };
        let (keys, keep) = (&self.keys, timing::queue_lifetime(options.ttl));
        let delivery = self.registration.as_ref().map(|registration| registration.delivery.clone());
        let (user, label) =
            (options.token.as_deref().unwrap_or_default(), options.label.as_deref().unwrap_or_default());
        let token = options.token.as_deref().unwrap_or(&self.id);
        let (id, contender, wait, ticket) =
            (&self.id, self.link.shared.inbox.contender(), self.claim.wait, self.ticket);
        let tail = format!(" {id} {} {user}{label}", user.len());
        let answer = self.link.run(Script::Acquire, limits, |sent, cmd| {
            let until = format!("{:016}", (sent.server_ms + life) * 1000);
            let stamp = sent.at.nanos();
            let (how, keep) = match (wait, sent.messages) {
                (false, _) => ('0', keep),
                (true, true) => ('x', keep),
                (true, false) => ('a', TURN_KEPT),
            };
            if let Some(delivery) = delivery.as_ref().filter(|_| wait) {
                delivery.add_request(sent.at, options.ttl.max(keep));
            }
            let rest = format!("{how} {contender} {id} {} {} {stamp} {ticket}", user.len(), millis(keep));
            keys.add_to(cmd);
            cmd.arg(token).arg(millis(options.ttl)).arg(until).arg(&tail).arg(rest);
        });
        match answer.await {
            Ok(answer) => {
                answer.unanswered.iter().for_each(|sent| self.in_doubt.add(sent.server_ms + life, sent.conn));
                self.in_doubt.answered_on(answer.sent.conn);
                Ok(answer)
            }
            Err(refusal) => {
                refusal.unanswered.iter().for_each(|sent| self.in_doubt.add(sent.server_ms + life, sent.conn));
                if let Some(registration) =
                    self.registration.as_ref().filter(|_| wait && !refusal.unanswered.is_empty())
                {
                    registration.delivery.set_queued();
                }
                Err(refusal.into())
            }
        }
    }

    /// Reads an answer that grants nothing. `None`: ask again at once.
    async fn refused(&mut self, parts: Vec<Value>, conn: &Arc<Conn>) -> Result<Option<Attempt>> {
        match parts.as_slice() {
            [Value::BulkString(what), Value::Int(now)] if what == b"L" => {
                conn.set_clock(*now);
                Ok(None)
            }
            [Value::BulkString(what), Value::Int(left), Value::Int(foreign), ticket, Value::Int(now)]
                if what == b"B" =>
            {
                conn.set_clock(*now);
                if let Some(registration) = self.registration.as_ref().filter(|_| self.claim.wait) {
                    registration.delivery.set_queued();
                    self.queued = true;
                }
                self.ticket = redis::from_redis_value(ticket.clone()).unwrap_or(0);
                if self.claim.wait && *foreign == 1 && conn.tracking && Box::pin(self.watch(conn)).await {
                    return Ok(None);
                }
                Ok(Some(Attempt::Busy(self.wake(conn, *left, *foreign == 1))))
            }
            _ => {
                let value = Value::Array(parts);
                Err(no_lock(&value).unwrap_or_else(|| unexpected(&value)))
            }
        }
    }

    /// Asks the server to report changes of a key that isn't dlock's. Returns true if the key is gone already.
    async fn watch(&self, conn: &Arc<Conn>) -> bool {
        let Some(registration) = &self.registration else { return false };
        // Registered before the request, so that no change is missed.
        self.link.shared.inbox.watch(&self.keys.key, &registration.delivery);
        let mut pipe = redis::pipe();
        pipe.cmd("CLIENT").arg("CACHING").arg("YES").cmd("PTTL").arg(&self.keys.key);
        let mut mux = conn.mux.clone();
        let asked = tokio::time::timeout(PATIENCE, mux.send_packed_commands(&pipe, 0, 2)).await;
        matches!(asked.ok().and_then(Result::ok).as_deref(), Some([_, Value::Int(-2)]))
    }

    /// Returns the hint for the next try.
    fn wake(&mut self, conn: &Conn, left_ms: i64, foreign: bool) -> RetryHint {
        let refresh = timing::queue_refresh(self.claim.options.ttl);
        let until_free = match u64::try_from(left_ms) {
            Ok(left) => Duration::from_millis(left + fastrand::u64(1..=10)).min(refresh),
            Err(_) => refresh,
        };
        let notified = conn.messages && (!foreign || conn.tracking);
        let after = if notified {
            until_free
        } else {
            // No message will come: poll, less and less often.
            until_free.min(self.polls.next())
        };
        let delivery = self.registration.as_ref().map(|registration| registration.delivery.clone());
        RetryHint { after, on: delivery.map(|delivery| -> BoxFuture<'static, ()> { Box::pin(delivery.notified()) }) }
    }

    /// Returns true if a grant that counts from `since` comes too late to be used without another request.
    fn is_late(&self, since: Instant) -> bool {
        since.plus(timing::handover_limit(self.claim.options.ttl)).passed()
    }

    /// Returns the grant, which takes over the registration and the requests in doubt.
    fn granted(&mut self, fence: u64, since: Instant) -> Attempt {
        let registration = self.registration.take();
        let in_doubt = std::mem::take(&mut self.in_doubt);
        let (link, claim, id) = (self.link.clone(), self.claim.clone(), self.id.clone());
        let held = RedisGrant::new(link, claim, id, self.keys.clone(), fence, registration, in_doubt);
        Attempt::Granted { grant: Arc::new(held), since, ttl: self.claim.options.ttl }
    }
}

impl Contender for RedisContender {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.registration.is_none() || !self.queued && self.in_doubt.is_empty() {
                self.registration = None;
                return Ok(());
            }
            let user = self.claim.options.token.clone();
            let orphan = Orphan { keys: self.keys.clone(), claim: self.id.clone(), user, until: self.in_doubt.until() };
            let limits = self.link.limits(patience(self.claim.options.ttl));
            match withdraw(&self.link, &orphan, limits).await {
                Ok(withdrawn) => {
                    self.in_doubt.answered_on(withdrawn.conn);
                    if !self.in_doubt.is_empty() && withdrawn.server_ms <= orphan.until {
                        orphans::take_back(&self.link, orphan);
                    }
                }
                Err(error) if error.is_temporary() => return Err(error),
                // Refused for good: the caller need not wait.
                Err(_) => orphans::take_back(&self.link, orphan),
            }
            self.registration = None;
            Ok(())
        })
    }
}

/// Returns the error for an answer that no script gives.
fn unexpected(value: &Value) -> Error {
    Error::refused(format!("Redis answered what was not expected: {value:?}"))
}
