//! The client's side of the fake backend: unknown outcomes are remembered, and settled by asking again.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::contract::{Attempt, Backend, Contender, ContenderInfo, DueLease, Grant, Released, Renewal, RetryHint};
use dlock::runtime::BoxFuture;
use dlock::{Claim, Error, Result};

use crate::server::{Reply, Request};
use crate::world::{Answer, COMMAND, Mailbox, REQUEST_LIFE, World, ms};

/// One process's connection.
pub struct Remote {
    pub world: Arc<World>,
    pub p: usize,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.p).finish()
    }
}

/// What is known of one claim's requests.
#[derive(Debug, Default)]
struct Doubt {
    /// Until when a take that was sent, or a copy of it, may still be executed.
    till: Option<Instant>,
    /// The last one sent had no answer.
    open: bool,
    /// When the last one was sent.
    sent: Option<Instant>,
}

fn unknown() -> Error {
    Error::unavailable("no answer: the outcome is unknown")
}

fn refused() -> Error {
    Error::unavailable("refused")
}

impl Remote {
    async fn call(&self, request: Request, limit: Duration) -> Result<Reply> {
        match self.world.call(self.p, request, limit).await {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refused => Err(refused()),
            Answer::Unknown => Err(unknown()),
        }
    }

    /// Whether every take of this claim is done with once a give is executed at this time of the server.
    fn settles(&self, till: Option<Instant>, now: Instant) -> bool {
        till.is_none_or(|till| now > till)
    }
}

impl Backend for Remote {
    fn name_of(&self, key: &str) -> Result<String> {
        Ok(key.to_owned())
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        let mail = Arc::new(Mailbox::default());
        self.world.lock().hosts[self.p].mail.insert(claim.nonce, mail.clone());
        Box::new(Bidder { remote: self, claim, mail, doubt: Doubt::default() })
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        Box::pin(async move {
            let since = Instant::now();
            let all = due.iter().map(|due| {
                let held = own(&due.grant);
                let mut shortest = held.shortest.lock().unwrap();
                *shortest = due.ttl.min(*shortest);
                (held.key.clone(), held.nonce, due.ttl)
            });
            let all: Vec<_> = all.collect();
            self.world.lock().check.renewing(self.p, &all);
            if all.len() > 1 {
                self.world.count("renewed in a batch");
            }
            let answer = self.call(Request::Renew(all), COMMAND).await;
            let told = match answer {
                Ok(Reply::Renewed(told)) => told,
                Err(error) => return due.iter().map(|_| Err(error.clone())).collect(),
                Ok(_) => unreachable!(),
            };
            let mut inner = self.world.lock();
            let renewals = due.iter().zip(told).map(|(due, kept)| {
                if kept {
                    return Ok(Renewal::Kept { since, ttl: due.ttl });
                }
                inner.check.told_lost(own(&due.grant).nonce);
                Ok(Renewal::Lost)
            });
            renewals.collect()
        })
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(async move {
            match self.call(Request::Look(name.to_owned()), COMMAND).await? {
                Reply::Holders(all) => Ok(all),
                _ => unreachable!(),
            }
        })
    }

    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            match self.call(Request::Break(name.to_owned()), COMMAND).await? {
                Reply::Broken(broken) => Ok(broken),
                _ => unreachable!(),
            }
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.call(Request::Ping, COMMAND).await.map(drop) })
    }
}

struct Bidder {
    remote: Arc<Remote>,
    claim: Claim,
    mail: Arc<Mailbox>,
    doubt: Doubt,
}

impl Bidder {
    fn granted(&mut self, fence: u64, since: Instant) -> Attempt {
        let world = &self.remote.world;
        let ttl = self.claim.options.ttl;
        if since.plus(ttl).passed() {
            world.count("late grant");
        }
        let held = Held {
            remote: self.remote.clone(),
            key: self.claim.options.name.to_string(),
            nonce: self.claim.nonce,
            fence,
            shortest: Mutex::new(ttl),
            till: self.doubt.till,
            gave: Mutex::new(false),
        };
        Attempt::Granted { grant: Arc::new(held), since, ttl }
    }

    fn mailed(&mut self) -> Option<Attempt> {
        let (fence, stamp) = self.mail.grant.lock().unwrap().take()?;
        self.remote.world.count("handed over");
        let since = if self.remote.world.is("backend-counts-from-last-sent") {
            self.doubt.sent.unwrap_or(stamp)
        } else {
            stamp
        };
        Some(self.granted(fence, since))
    }

    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        if let Some(attempt) = self.mailed() {
            return Ok(attempt);
        }
        let (remote, key) = (self.remote.clone(), self.claim.options.name.to_string());
        let stamp = Instant::now();
        let till = stamp.plus(REQUEST_LIFE);
        let age = remote.world.age(self.claim.options.ttl);
        if !age.is_zero() {
            remote.world.count("aged");
        }
        let was_open = self.doubt.open;
        if remote.world.plan.twice > 0.0 {
            // A copy of it may come even after its answer.
            self.doubt.till = Some(till);
        }
        self.doubt.sent = Some(stamp);
        let request = Request::Take { claim: self.claim.clone(), stamp, age, till };
        let _taking = Taking::begin(&remote, &key);
        let answer = remote.world.call(remote.p, request, budget).await;
        let reply = match answer {
            Answer::Reply(reply) => reply,
            Answer::Refused => return Err(refused()),
            Answer::Unknown => {
                self.doubt.open = true;
                self.doubt.till = Some(till);
                return Err(unknown());
            }
        };
        self.doubt.open = false;
        match reply {
            Reply::Granted(fence) => {
                if was_open {
                    remote.world.count("unknown settled as granted");
                }
                Ok(self.granted(fence, stamp.minus(age)))
            }
            Reply::Late => Err(refused()),
            Reply::Busy(left) => {
                remote.world.count("contended");
                if let Some(attempt) = self.mailed() {
                    return Ok(attempt);
                }
                let refresh = (self.claim.options.ttl / 3).max(ms(100));
                // Little jitter: to be there the moment a lock ends is what is worth trying.
                let after = left.clamp(ms(10), refresh) + Duration::from_micros(fastrand::u64(0..2_000));
                let mail = self.mail.clone();
                let on: BoxFuture<'static, ()> = Box::pin(async move { mail.notify.notified().await });
                Ok(Attempt::Busy(RetryHint { after, on: Some(on) }))
            }
            _ => unreachable!(),
        }
    }

    async fn leave(&mut self) -> Result<()> {
        let remote = self.remote.clone();
        if self.doubt.sent.is_none() {
            // Nothing was ever sent.
            return Ok(());
        }
        if self.doubt.open && remote.world.is("backend-forgets-unknown") {
            return Ok(());
        }
        remote.world.lock().check.ending(self.claim.nonce, self.claim.options.ttl);
        let request = Request::Give { key: self.claim.options.name.to_string(), nonce: self.claim.nonce };
        let Reply::Gave(held, now) = remote.call(request, COMMAND).await? else { unreachable!() };
        if self.doubt.open {
            self.doubt.open = false;
            remote.world.count(if held { "unknown settled as granted" } else { "unknown settled as not granted" });
        }
        if !remote.settles(self.doubt.till, now) {
            return Err(Error::unavailable("a request may still be on its way"));
        }
        remote.world.lock().check.ended(self.claim.nonce, true);
        Ok(())
    }
}

impl Contender for Bidder {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.leave())
    }
}

impl Drop for Bidder {
    fn drop(&mut self) {
        self.remote.world.lock().hosts[self.remote.p].mail.remove(&self.claim.nonce);
    }
}

/// Counts the takes that are on their way.
struct Taking(Arc<Remote>, String);

impl Taking {
    fn begin(remote: &Arc<Remote>, key: &str) -> Self {
        let mut inner = remote.world.lock();
        *inner.hosts[remote.p].taking.entry(key.to_owned()).or_default() += 1;
        Self(remote.clone(), key.to_owned())
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut inner = self.0.world.lock();
        *inner.hosts[self.0.p].taking.entry(self.1.clone()).or_default() -= 1;
    }
}

struct Held {
    remote: Arc<Remote>,
    key: String,
    nonce: u64,
    fence: u64,
    /// The shortest ttl it was ever asked for: so long a release is tried at the least.
    shortest: Mutex<Duration>,
    till: Option<Instant>,
    /// A give was sent before, so that "not ours" may mean that it was executed.
    gave: Mutex<bool>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.key).field(&self.fence).finish()
    }
}

fn own(grant: &Arc<dyn Grant>) -> &Held {
    let any: &dyn Any = &**grant;
    any.downcast_ref().expect("a grant of this backend")
}

impl Held {
    async fn give(&self) -> Result<Released> {
        let request = Request::Give { key: self.key.clone(), nonce: self.nonce };
        let before = *self.gave.lock().unwrap();
        let shortest = *self.shortest.lock().unwrap();
        self.remote.world.lock().check.ending(self.nonce, shortest);
        let (held, now) = match self.remote.world.call(self.remote.p, request.clone(), COMMAND).await {
            Answer::Reply(Reply::Gave(held, now)) => (held, now),
            Answer::Reply(_) => unreachable!(),
            Answer::Refused => return Err(refused()),
            Answer::Unknown => {
                *self.gave.lock().unwrap() = true;
                return Err(unknown());
            }
        };
        let settled = self.remote.settles(self.till, now);
        self.remote.world.lock().check.ended(self.nonce, settled);
        if !settled {
            // A take of it may still come: it is undone in the background.
            let (remote, till, nonce) = (self.remote.clone(), self.till, self.nonce);
            dlock::runtime::spawn(async move {
                loop {
                    clock::sleep(ms(50)).await;
                    if let Ok(Reply::Gave(_, now)) = remote.call(request.clone(), COMMAND).await
                        && remote.settles(till, now)
                    {
                        remote.world.lock().check.ended(nonce, true);
                        return;
                    }
                }
            });
        }
        Ok(if held || before { Released::Yes } else { Released::NotOurs })
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
