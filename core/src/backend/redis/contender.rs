//! A contender: one claim, from its first request to a grant or its withdrawal.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::grant::{Doubt, Held};
use super::inbox::Entry;
use super::keys::Names;
use super::link::{Answer, Conn, Limits, Link, PATIENCE};
use super::orphans::{Ghost, leave};
use super::script::Script;
use crate::clock::Instant;
use crate::contract::Claim;
use crate::contract::{Attempt, Contender, RetryHint};
use crate::error::{Error, Result};
use crate::runtime::BoxFuture;

/// The least time for which a request may be accepted, so that a clock that is not quite known refuses none.
const LEAST_LIFE: Duration = Duration::from_millis(250);
/// The longest.
const LIFE: Duration = Duration::from_secs(5);
/// How long the turn of a waiter that no message reaches is kept for it: it asks again after 250 ms at the latest.
const TURN_KEPT: Duration = Duration::from_secs(2);

pub(super) struct Waiter {
    link: Arc<Link>,
    claim: Claim,
    id: Arc<str>,
    names: Arc<Names>,
    entry: Option<Entry>,
    /// The place in the queue, once told.
    ticket: u64,
    /// Whether it may stand in the queue.
    queued: bool,
    doubt: Doubt,
    polls: u32,
}

/// How often the place in the queue is refreshed.
pub(super) fn refresh(ttl: Duration) -> Duration {
    (ttl / 3).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

/// How long a request about a lock of this ttl is waited for before it is asked elsewhere as well.
pub(super) fn patience(ttl: Duration) -> Duration {
    (ttl / 4).clamp(Duration::from_millis(50), PATIENCE)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Waiter {
    pub(super) fn new(link: Arc<Link>, claim: Claim) -> Self {
        let names = Arc::new(Names::new(&claim.options.name));
        let id = format!("{}.{}", link.post.contender(), claim.nonce).into();
        Self { link, claim, id, names, entry: None, ticket: 0, queued: false, doubt: Doubt::default(), polls: 0 }
    }

    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let link = self.link.clone();
        let entry = self.entry.get_or_insert_with(|| link.post.enter(self.claim.nonce, &self.names));
        if let Some(handed) = entry.mail.take() {
            let since = if mutant!("redis-handed-over-from-receipt") { Instant::now() } else { handed.since };
            // Later than that it may have ended, and been granted to this very claim again with another fence: asked for.
            if !self.is_late(since) || mutant!("redis-handed-over-late-not-renewed") {
                return Ok(self.granted(handed.fence, since));
            }
        }
        // A server whose clock has moved refuses the first as late, and tells its time; a foreign key may be gone again.
        for _ in 0..3 {
            let answer = self.take(budget).await?;
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
        Err(Error::unavailable(format!("the clock of Redis at {} is not to be followed", link.address)))
    }

    /// Sends the request.
    async fn take(&mut self, budget: Duration) -> Result<Answer> {
        let options = &self.claim.options;
        let life = i64::try_from(budget.clamp(LEAST_LIFE, LIFE).as_millis()).unwrap_or(i64::MAX);
        let limits = Limits { patience: patience(options.ttl), budget };
        let (names, keep) = (&self.names, refresh(options.ttl) * 3);
        let mail = self.entry.as_ref().map(|entry| entry.mail.clone());
        let (user, label) =
            (options.token.as_deref().unwrap_or_default(), options.label.as_deref().unwrap_or_default());
        let token = options.token.as_deref().unwrap_or(&self.id);
        let (id, contender, wait, ticket) = (&self.id, self.link.post.contender(), self.claim.wait, self.ticket);
        let tail = format!(" {id} {} {user}{label}", user.len());
        let answer = self.link.run(Script::Take, limits, |sent, cmd| {
            let till = format!("{:016}", (sent.server_ms + life) * 1000);
            let stamp = sent.at.nanos();
            let (how, keep) = match (wait, sent.messages) {
                (false, _) => ('0', keep),
                (true, true) => ('x', keep),
                (true, false) => ('a', TURN_KEPT),
            };
            if let Some(mail) = mail.as_ref().filter(|_| wait) {
                mail.sends(sent.at, options.ttl.max(keep));
            }
            let rest = format!("{how} {contender} {id} {} {} {stamp} {ticket}", user.len(), millis(keep));
            names.add_to(cmd);
            cmd.arg(token).arg(millis(options.ttl)).arg(till).arg(&tail).arg(rest);
        });
        match answer.await {
            Ok(answer) => {
                answer.unanswered.iter().for_each(|sent| self.doubt.add(sent, life));
                self.doubt.settled_on(answer.sent.conn);
                Ok(answer)
            }
            Err(failure) => {
                failure.unanswered.iter().for_each(|sent| self.doubt.add(sent, life));
                if let Some(entry) = self.entry.as_ref().filter(|_| wait && !failure.unanswered.is_empty()) {
                    entry.mail.queues();
                }
                Err(failure.error)
            }
        }
    }

    /// `None`: ask again at once.
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
                if let Some(entry) = self.entry.as_ref().filter(|_| self.claim.wait) {
                    entry.mail.queues();
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
                Err(super::no_lock(&value).unwrap_or_else(|| unexpected(&value)))
            }
        }
    }

    /// Has the server tell when a key that isn't dlock's changes. True: it is gone already.
    async fn watch(&self, conn: &Arc<Conn>) -> bool {
        let Some(entry) = &self.entry else { return false };
        // Before asking: what changes meanwhile is not missed.
        self.link.post.watch(&self.names.key, &entry.mail);
        let mut pipe = redis::pipe();
        pipe.cmd("CLIENT").arg("CACHING").arg("YES").cmd("PTTL").arg(&self.names.key);
        let mut mux = conn.mux.clone();
        let asked = tokio::time::timeout(PATIENCE, mux.send_packed_commands(&pipe, 0, 2)).await;
        matches!(asked.ok().and_then(Result::ok).as_deref(), Some([_, Value::Int(-2)]))
    }

    fn wake(&mut self, conn: &Conn, left_ms: i64, foreign: bool) -> RetryHint {
        let refresh = refresh(self.claim.options.ttl);
        let until_free = match u64::try_from(left_ms) {
            Ok(left) => Duration::from_millis(left + fastrand::u64(1..=10)).min(refresh),
            Err(_) => refresh,
        };
        let told = conn.messages && (!foreign || conn.tracking);
        let after = if told {
            until_free
        } else {
            // Nobody tells: looked at again, less and less often.
            self.polls = (self.polls + 1).min(6);
            let pause = Duration::from_millis(5 << self.polls).min(Duration::from_millis(250));
            until_free.min(pause.mul_f64(0.5 + fastrand::f64() / 2.0))
        };
        let mail = self.entry.as_ref().map(|entry| entry.mail.clone());
        RetryHint { after, on: mail.map(|mail| -> BoxFuture<'static, ()> { Box::pin(mail.rung()) }) }
    }

    /// Whether less than half of the ttl is left of what counts from then.
    fn is_late(&self, since: Instant) -> bool {
        since.plus(self.claim.options.ttl / 2).passed()
    }

    fn granted(&mut self, fence: u64, since: Instant) -> Attempt {
        let entry = self.entry.take();
        let doubt = std::mem::take(&mut self.doubt);
        let (link, claim, id) = (self.link.clone(), self.claim.clone(), self.id.clone());
        let held = Held::new(link, claim, id, self.names.clone(), fence, entry, doubt);
        Attempt::Granted { grant: Arc::new(held), since, ttl: self.claim.options.ttl }
    }
}

impl Contender for Waiter {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.entry.is_none() || !self.queued && self.doubt.is_none() {
                self.entry = None;
                return Ok(());
            }
            let user = self.claim.options.token.clone();
            let ghost = Ghost { names: self.names.clone(), claim: self.id.clone(), user, till: self.doubt.till() };
            let limits = self.link.limits(patience(self.claim.options.ttl));
            match leave(&self.link, &ghost, limits).await {
                Ok(left) => {
                    self.doubt.settled_on(left.conn);
                    if !self.doubt.is_none() && left.server_ms <= ghost.till {
                        self.link.reap(ghost);
                    }
                }
                Err(failure) if failure.error.is_temporary() => return Err(failure.error),
                // Refused for good: nobody is kept waiting for that.
                Err(_) => self.link.reap(ghost),
            }
            self.entry = None;
            Ok(())
        })
    }
}

fn unexpected(value: &Value) -> Error {
    Error::refused(format!("Redis answered what was not expected: {value:?}"))
}
