//! A contender: one claim, from its first request to a grant or its withdrawal.

use std::sync::Arc;
use std::time::Duration;

use super::Etcd;
use super::error::Fate;
use super::grant::Held;
use super::keys::{key, value};
use super::link::{Limits, PATIENCE, Refusal, Unanswered};
use super::mutex::{Asker, Line, Seen, leave};
use super::orphans::{self, Ghost};
use super::session::Session;
use super::watch::Interest;
use crate::clock::Instant;
use crate::contract::Claim;
use crate::contract::{Attempt, Contender, RetryHint};
use crate::error::Result;
use crate::runtime::BoxFuture;

/// How often a contender looks again at once before it lets others have the server.
const LOOKS: u32 = 8;

pub(super) struct Waiter {
    etcd: Arc<Etcd>,
    claim: Claim,
    value: Vec<u8>,
    seat: Option<Seat>,
    interest: Option<Interest>,
    polls: u32,
}

/// Under which key the claim stands, or may stand.
struct Seat {
    session: Arc<Session>,
    key: Vec<u8>,
    /// The revision at which the key was put; 0: not known to be there.
    rev: i64,
    /// Where putting it has had no answer.
    unanswered: Unanswered,
    /// Whether it may be there all the same.
    unknown: bool,
}

impl Seat {
    fn is_doubtful(&self) -> bool {
        self.unknown || !self.unanswered.is_empty()
    }

    fn may_be_there(&self) -> bool {
        self.rev != 0 || self.is_doubtful()
    }
}

/// How long a request about a lock of this ttl is waited for before it is asked elsewhere as well.
pub(super) fn patience(ttl: Duration) -> Duration {
    (ttl / 4).clamp(Duration::from_millis(50), PATIENCE)
}

impl Waiter {
    pub(super) fn new(etcd: Arc<Etcd>, claim: Claim) -> Self {
        let value = value(&claim);
        Self { etcd, claim, value, seat: None, interest: None, polls: 0 }
    }

    async fn try_once(&mut self, budget: Duration) -> Result<Attempt> {
        let end = Instant::now().plus(budget);
        for _ in 0..LOOKS {
            let limits = Limits { patience: patience(self.claim.options.ttl), budget: end.left() };
            self.seated(limits).await?;
            let Some(seat) = &mut self.seat else { continue };
            // Before asking: the server has executed the keep-alive by which the lease lives.
            let since = seat.session.since();
            if seat.rev != 0 && self.interest.as_ref().is_some_and(Interest::is_first) {
                let rev = seat.rev;
                return Ok(self.granted(rev, since));
            }
            let listens = self.interest.as_ref().is_some_and(Interest::listen);
            let (link, name) = (&self.etcd.link, &*self.claim.options.name);
            let (floors, made) = (&self.etcd.floors, link.made());
            let asker = Asker { link, name, key: &seat.key, value: &self.value, limits, floors, made };
            let lease = seat.session.id;
            let answer = match seat.rev {
                0 if self.claim.wait => asker.enter(lease).await,
                0 => asker.take(lease).await,
                rev => asker.look(rev).await.map(|seen| (seen, Unanswered::new())),
            };
            let seen = match answer {
                Ok((seen, unanswered)) => {
                    seat.unanswered.extend(unanswered);
                    seen
                }
                Err(refusal) if refusal.failure.fate == Fate::NoLease => {
                    // What was asked before can't be done any more either.
                    seat.session.lose();
                    self.seat = None;
                    continue;
                }
                Err(refusal) => {
                    if seat.rev == 0 && refusal.is_unknown() {
                        seat.unknown = true;
                        seat.unanswered.extend(refusal.unanswered);
                    }
                    return Err(refusal.failure.error);
                }
            };
            match seen {
                Seen::First { rev } => return Ok(self.granted(rev, since)),
                Seen::Behind { rev, line } => {
                    seat.rev = rev;
                    if !self.claim.wait {
                        return Ok(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None }));
                    }
                    if let Some(wake) = self.wake(listens, line, limits).await {
                        return Ok(Attempt::Busy(wake));
                    }
                }
                Seen::Absent if !self.claim.wait && seat.rev == 0 => {
                    return Ok(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None }));
                }
                // Its lease has ended or it was deleted: the place is lost.
                Seen::Absent => self.give_up_seat(),
                Seen::Foreign(theirs) => {
                    seat.rev = 0;
                    seat.unknown = false;
                    let ghost = Ghost { key: seat.key.clone(), value: theirs, unanswered: Unanswered::new() };
                    orphans::settle(self.etcd.link.clone(), &seat.session, ghost);
                    self.etcd.sessions.retire(&seat.session);
                    self.give_up_seat();
                }
            }
        }
        Ok(Attempt::Busy(RetryHint { after: Duration::from_millis(fastrand::u64(5..=15)), on: None }))
    }

    /// Sees to it that there is a key to stand under, with a lease that lives.
    async fn seated(&mut self, limits: Limits) -> Result<(), Refusal> {
        if let Some(seat) = &self.seat {
            let session = &seat.session;
            // A lease of its own is to be whole when it is granted.
            let age = if session.own { session.ttl / 10 } else { session.ttl / 3 };
            let lives = !session.since().plus(age).passed()
                || Box::pin(session.keep_alive(limits, Instant::now().minus(age))).await?;
            if lives {
                return Ok(());
            }
            self.seat = None;
        }
        let options = &self.claim.options;
        // As long as with any lease.
        let size = options.name.len() + 17;
        let session = self.etcd.sessions.pick(options.ttl, !options.auto_renew, size, limits).await?;
        let key = key(&options.name, session.id);
        self.interest = self.interest.take().filter(|interest| interest.is_for(&key));
        if self.interest.is_none() && self.claim.wait {
            self.interest = self.etcd.watches.enter(&options.name, &key, true);
        }
        self.seat = Some(Seat { session, key, rev: 0, unanswered: Unanswered::new(), unknown: false });
        Ok(())
    }

    /// What to wait for behind these. `None`: look again at once.
    async fn wake(&mut self, listens: bool, line: Line, limits: Limits) -> Option<RetryHint> {
        let seat = self.seat.as_ref()?;
        let after = seat.session.since().plus(seat.session.ttl / 3).left().max(Duration::from_millis(10));
        if listens {
            let interest = self.interest.as_ref()?;
            if !interest.arm(line) {
                return None;
            }
            self.polls = 0;
            return Some(RetryHint { after, on: Some(Box::pin(interest.rung())) });
        }
        let watched = match &self.interest {
            Some(interest) => interest,
            None => {
                let (name, key) = (&self.claim.options.name, &seat.key);
                self.interest = self.etcd.watches.enter(name, key, false);
                self.interest.as_ref()?
            }
        };
        if watched.ready(limits.patience.min(limits.budget)).await {
            if mutant!("etcd-listens-after-reading") && watched.listen() && watched.arm(line) {
                return Some(RetryHint { after, on: Some(Box::pin(watched.rung())) });
            }
            return None;
        }
        // Nobody tells: looked at again, less and less often.
        self.polls = (self.polls + 1).min(6);
        let pause = Duration::from_millis(5 << self.polls).min(Duration::from_millis(250));
        Some(RetryHint { after: after.min(pause.mul_f64(0.5 + fastrand::f64() / 2.0)), on: None })
    }

    /// Begins anew under another key, or under the same one.
    fn give_up_seat(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        if seat.is_doubtful() {
            self.haunted(&seat);
        }
    }

    /// What was asked there may still be there, or be done.
    fn haunted(&self, seat: &Seat) {
        let (key, value, unanswered) = (seat.key.clone(), self.value.clone(), seat.unanswered.clone());
        let ghost = Ghost { key, value, unanswered };
        self.etcd.sessions.retire(&seat.session);
        orphans::settle(self.etcd.link.clone(), &seat.session, ghost);
    }

    fn granted(&mut self, rev: i64, since: Instant) -> Attempt {
        let Some(seat) = self.seat.take() else {
            return Attempt::Busy(RetryHint { after: Duration::ZERO, on: None });
        };
        let ttl = seat.session.ttl;
        let interest = self.interest.take();
        let (etcd, claim, value) = (self.etcd.clone(), self.claim.clone(), std::mem::take(&mut self.value));
        let held = Held::new(etcd, claim, (seat.key, value), rev, seat.session, interest, seat.unanswered);
        Attempt::Granted { grant: Arc::new(held), since, ttl }
    }

    async fn leave(&mut self) -> Result<()> {
        let Some(seat) = &self.seat else { return Ok(()) };
        let limits = self.etcd.link.limits(patience(self.claim.options.ttl));
        let doubtful = seat.is_doubtful();
        if !seat.may_be_there() {
            return Ok(());
        }
        if seat.session.own {
            // It goes with its lease, and can't come later.
            seat.session.revoke(limits).await?;
            return Ok(());
        }
        let rev = if doubtful { 0 } else { seat.rev };
        match leave(&self.etcd.link, limits, (&seat.key, &self.value), rev).await {
            Ok(_) if doubtful => self.haunted(seat),
            Ok(_) => {}
            Err(refusal) if refusal.failure.error.is_temporary() => return Err(refusal.into()),
            // Refused for good: nobody is kept waiting for that.
            Err(_) => self.haunted(seat),
        }
        Ok(())
    }
}

/// What it couldn't be freed of in time is looked after in the background: its lease may live on for others.
impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take().filter(|seat| seat.may_be_there() && !seat.session.own) {
            self.haunted(&seat);
        }
    }
}

impl Contender for Waiter {
    fn attempt(&mut self, budget: Duration) -> BoxFuture<'_, Result<Attempt>> {
        Box::pin(self.try_once(budget))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.leave().await?;
            (self.seat, self.interest) = (None, None);
            Ok(())
        })
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("claim", &self.claim).finish_non_exhaustive()
    }
}
