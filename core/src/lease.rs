//! One successful acquisition: what proves it, how long it is good for, how its end is told and how it is given back.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;

use crate::backend::{BoxFuture, Due, Grant, Renewal};
use crate::claim::{Claim, check_ttl};
use crate::client::Core;
use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Result, show};
use crate::event::{self, What};
use crate::gate::{Slot, Turn};
use crate::op::Op;
use crate::runtime::{self, locked};

/// How long a release may take before its caller is told that it isn't confirmed.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// The least ttl that a backend is asked for with a lease that is only looked at.
const LOOKED_AT: Duration = Duration::from_millis(100);

/// What became of a lease. `Held` turns into one of the others, which are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ours, as far as this process has been told; whether it still counts is for [`Lease::is_held`] to compute.
    Held,
    /// No longer ours, or not proven to be.
    Lost,
    /// Given back.
    Released,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was ours until it was given back.
    Released,
    /// It had been lost before.
    Lost,
}

/// Why a lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cause {
    Unknown,
    Expired,
    Taken,
    Held,
    Closed,
}

/// A lock that is held, until it is released, lost, or dropped, which releases it in the background.
///
/// May be moved to and used from any thread. Ownership belongs to this value, not to a thread.
pub struct Lease(Arc<Inner>);

type Hook = Box<dyn FnOnce() + Send>;

pub(crate) struct Inner {
    epoch: u32,
    /// Which handle of the client made it.
    pub(crate) handle: u64,
    core: Arc<Core>,
    claim: Claim,
    grant: Arc<dyn Grant>,
    fence: Option<u64>,
    /// When the core saw the grant: its age and its longest hold count from then.
    granted: Instant,
    hold_end: Instant,
    /// When the backend's own countdown ends, and when we stop counting on it; `NEVER`: the process is the lease.
    expires: AtomicU64,
    valid_until: AtomicU64,
    /// When the watchdog renews it next.
    renew_at: AtomicU64,
    ttl: AtomicU64,
    state: AtomicU8,
    cause: AtomicU8,
    renewing: AtomicBool,
    settling: AtomicBool,
    /// What the backend said to the release: 0 nothing yet, 1 given back, 2 wasn't ours, 3 never answered.
    settled: AtomicU8,
    turn: Turn,
    /// Whether anybody has ever asked to be told of a change: most leases end with nobody watching.
    watched: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
    changed: Notify,
    /// Free for a binding's use.
    tag: AtomicU64,
}

const HELD: u8 = 0;
const LOST: u8 = 1;
const RELEASED: u8 = 2;

/// The share of a ttl that is given up for clocks that run at different rates: 1 % and 2 ms.
fn drift(ttl: Duration) -> Duration {
    ttl / 100 + Duration::from_millis(2)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Lease {
    /// Makes the lease, with the turn in the gate, from what the backend granted.
    pub(crate) fn new(
        core: &Arc<Core>,
        handle: u64,
        claim: Claim,
        grant: Arc<dyn Grant>,
        since: Instant,
        ttl: Duration,
        turn: Turn,
    ) -> Self {
        // `since` may lie long before: the request is of a session, or of a place in a queue.
        let granted = Instant::now();
        let since = core.not_in_the_future(since, granted);
        let endless = core.endless(&claim.terms);
        let (expires, valid_until) = ends(endless, since, ttl);
        let renew_at = if claim.terms.renew && core.backend.renews() { since.plus(ttl / 3) } else { Instant::NEVER };
        let held_from = if mutant!("hold-from-request") { since } else { granted };
        let hold_end = claim.terms.max_hold.map_or(Instant::NEVER, |hold| held_from.plus(hold));
        let inner = Arc::new(Inner {
            epoch: core.epoch,
            handle,
            core: core.clone(),
            fence: grant.fences().map(|fences| fences.start),
            granted,
            claim,
            grant,
            hold_end,
            expires: AtomicU64::new(expires.nanos()),
            valid_until: AtomicU64::new(valid_until.nanos()),
            renew_at: AtomicU64::new(renew_at.nanos()),
            ttl: AtomicU64::new(nanos(ttl)),
            state: AtomicU8::new(HELD),
            cause: AtomicU8::new(Cause::Unknown as u8),
            renewing: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            settled: AtomicU8::new(0),
            turn,
            watched: AtomicBool::new(false),
            hooks: Mutex::new(Vec::new()),
            changed: Notify::new(),
            tag: AtomicU64::new(0),
        });
        inner.turn.hold(&inner);
        core.enroll(&inner);
        Self(inner)
    }

    /// The user's key.
    pub fn key(&self) -> &str {
        &self.0.claim.terms.key
    }

    /// The text that proves ownership: the user's own, or one unique to this acquisition.
    pub fn token(&self) -> String {
        self.0.claim.token()
    }

    /// The fencing token: greater for every later grant of the key. `None` where the backend has none.
    pub fn fence(&self) -> Option<u64> {
        self.0.fence
    }

    /// The ttl that was granted.
    pub fn ttl(&self) -> Duration {
        self.0.ttl()
    }

    /// Whether it counts: computed from the clock at the call. Always false in a child of fork.
    pub fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// Held, lost or released, as told so far.
    pub fn state(&self) -> State {
        match self.0.state.load(Ordering::Acquire) {
            HELD => State::Held,
            LOST => State::Lost,
            _ => State::Released,
        }
    }

    /// Until when it counts with no further renewal; [`Instant::NEVER`] where the process itself is the lease.
    pub fn valid_until(&self) -> Instant {
        self.0.valid_until().min(self.0.hold_end)
    }

    /// How long it still counts with no further renewal: zero when not held, [`Duration::MAX`] for no limit.
    pub fn valid_for(&self) -> Duration {
        if self.is_held() { self.valid_until().left() } else { Duration::ZERO }
    }

    /// Makes sure that the lock is still ours.
    ///
    /// # Errors
    /// `Lost` when it isn't or can't be proven to be; `NotHeld` when it was released or belongs to the parent of a fork.
    pub fn check(&self) -> Result<()> {
        if self.is_held() { Ok(()) } else { Err(self.0.why_not()) }
    }

    /// The error that tells of the loss of this lease, and why it was lost.
    pub fn loss(&self) -> Error {
        self.0.loss()
    }

    /// Waits for the end: true when it was lost, false when it was released.
    ///
    /// # Cancel safety
    /// Dropping the call changes nothing.
    pub fn lost(&self) -> Op<bool> {
        let inner = self.0.clone();
        Op::watch(async move { Ok(inner.lost().await) })
    }

    /// As [`lost`](Self::lost), for a limited time: false when it came first.
    pub fn lost_within(&self, limit: Option<Duration>) -> Op<bool> {
        let inner = self.0.clone();
        let Some(limit) = limit else { return self.lost() };
        if inner.is_lost() {
            return Op::ready(Ok(true));
        }
        Op::watch(async move {
            tokio::select! {
                biased;
                lost = inner.lost() => Ok(lost),
                () = clock::sleep(limit) => Ok(false),
            }
        })
    }

    /// Has `f` called once when the lease is lost, at once if it was: on a thread of [`runtime::pool`], where it may take
    /// its time and wait for calls. A panic is caught, and told as an event. Not called when the lease is released.
    pub fn on_lost(&self, f: impl FnOnce() + Send + 'static) {
        if mutant!("process-hooks-where-they-are") {
            return self.on_lost_here(f);
        }
        let (backend, claim) = (self.0.core.name(), self.0.claim.clone());
        self.on_lost_here(move || runtime::pool(move || event::guarded(backend, &claim, f)));
    }

    /// As [`on_lost`](Self::on_lost), on the thread that finds it lost, which may be one that renews other leases, or this
    /// one: `f` hands the news over and returns. For bindings.
    pub fn on_lost_here(&self, f: impl FnOnce() + Send + 'static) {
        if self.0.epoch != runtime::epoch() {
            // A thread that isn't here may have locked the hooks for ever; and nothing loses this copy any more.
            return;
        }
        self.0.watched.store(true, Ordering::SeqCst);
        let call = |f| event::guarded(self.0.core.name(), &self.0.claim, f);
        if self.0.is_lost() {
            return call(f);
        }
        let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.state() == LOST {
            drop(hooks);
            call(f);
        } else if self.state() == State::Held {
            hooks.push(Box::new(f));
        }
    }

    /// Renews by hand, with a new ttl if one is given.
    ///
    /// # Errors
    /// `Lost`, `NotHeld`, `Invalid` for a ttl the backend can't keep, `Backend` when it didn't answer: then the lease
    /// goes on counting until [`valid_until`](Self::valid_until).
    pub fn renew(&self, ttl: Option<Duration>) -> Op<()> {
        let inner = self.0.clone();
        let ttl = ttl.unwrap_or_else(|| inner.ttl());
        if let Err(error) = check_ttl(ttl, inner.core.name(), &inner.core.capability).and_then(|()| self.check()) {
            return Op::ready(Err(error.with_key(inner.claim.terms.key.clone())));
        }
        Op::going(Some(inner.core.config.connect_timeout()), async move {
            let (due, asked) = ([inner.due(Some(ttl))], Instant::now());
            let answer = inner.core.backend.renew(&due).await.pop();
            let answer = answer.unwrap_or_else(|| Err(Error::unavailable("the backend gave no answer")));
            inner.core.heard(asked, &answer);
            let renewed = inner.renewed(answer, true);
            inner.core.enroll(&inner);
            renewed
        })
    }

    /// Gives the lock back. Idempotent; never touches a lock that is not ours.
    ///
    /// # Errors
    /// `NotHeld` for a lease made before a fork; `Backend`, temporary, when the backend didn't confirm within 5 s: the
    /// lease is over for this process all the same, and the release goes on in the background until the ttl has passed.
    ///
    /// # Cancel safety
    /// Once it has been polled, or dropped, it goes on by itself; dropping the call only stops waiting.
    pub fn release(&self) -> Op<Ended> {
        self.0.release()
    }

    /// A number a binding keeps with the lease.
    pub fn set_tag(&self, tag: u64) {
        self.0.tag.store(tag, Ordering::Release);
    }
}

/// Releases in the background. Does nothing at all in a child of fork: the lock is the parent's.
impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.epoch != runtime::epoch() {
            // Not even the parent's counters are touched: what they lead to may be locked for ever.
            std::mem::forget(self.0.clone());
            return;
        }
        self.0.abandon();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Lease");
        text.field("key", &show(self.key())).field("state", &self.state()).field("fence", &self.fence()).finish()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("claim", &self.claim).finish_non_exhaustive()
    }
}

/// When the backend's countdown ends, and when we stop counting on it.
fn ends(endless: bool, since: Instant, ttl: Duration) -> (Instant, Instant) {
    if endless {
        return (Instant::NEVER, Instant::NEVER);
    }
    let expires = since.plus(ttl);
    let drift = if mutant!("no-drift") { Duration::ZERO } else { drift(ttl) };
    (expires, expires.minus(drift))
}

impl Core {
    /// The time from which a backend says that its countdown runs, of an answer that came at `now`. Later than that it
    /// can't be: a lease would be believed for longer than it lives.
    fn not_in_the_future(&self, since: Instant, now: Instant) -> Instant {
        if mutant!("validity-from-receipt") {
            return now;
        }
        if since > now {
            let ahead = since - now;
            event::warn(self.name(), &format!("an answer was dated {ahead:?} in the future; it counts from now"));
        }
        since.min(now)
    }
}

impl Inner {
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        self.turn.slot()
    }

    /// Whether it is over for this process, and its release is under way.
    pub(crate) fn is_being_given_back(&self) -> bool {
        self.settling.load(Ordering::Acquire) && self.settled.load(Ordering::Acquire) == 0
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    pub(crate) fn tag(&self) -> u64 {
        self.tag.load(Ordering::Acquire)
    }

    pub(crate) fn age(&self) -> Duration {
        Instant::now() - self.granted
    }

    pub(crate) fn fence(&self) -> Option<u64> {
        self.fence
    }

    fn ttl(&self) -> Duration {
        Duration::from_nanos(self.ttl.load(Ordering::Acquire))
    }

    fn valid_until(&self) -> Instant {
        Instant::from_nanos(self.valid_until.load(Ordering::Acquire))
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    pub(crate) fn is_held(&self) -> bool {
        if self.epoch != runtime::epoch() || self.state() != HELD {
            return false;
        }
        if self.valid_until().min(self.hold_end).passed() && !mutant!("never-expires") {
            self.lose(self.time_cause());
            return false;
        }
        true
    }

    fn is_lost(&self) -> bool {
        !self.is_held() && self.state() == LOST
    }

    fn time_cause(&self) -> Cause {
        if self.hold_end.passed() { Cause::Held } else { Cause::Expired }
    }

    fn why_not(&self) -> Error {
        let error = if self.epoch != runtime::epoch() {
            Error::new(
                Kind::NotHeld,
                "the lease was made before a fork and belongs to the parent; acquire the lock here",
            )
        } else if self.state() == RELEASED {
            Error::new(Kind::NotHeld, "the lease was released before")
        } else {
            return self.loss();
        };
        error.with_key(self.claim.terms.key.clone()).with_service(self.core.name())
    }

    fn loss(&self) -> Error {
        let text = match self.cause.load(Ordering::Acquire) {
            cause if cause == Cause::Taken as u8 => "the lock was lost: the backend says that it is no longer ours",
            cause if cause == Cause::Held as u8 => "the lock was lost: it was held for longer than max_hold",
            cause if cause == Cause::Closed as u8 => "the lock was lost: the client that it came from was closed",
            _ => "the lock was lost: it was not renewed before it ended",
        };
        Error::new(Kind::Lost, text).with_key(self.claim.terms.key.clone()).with_service(self.core.name())
    }

    /// `Held` → `Lost`, once, and told to everybody.
    fn lose(&self, cause: Cause) {
        // Before the state: who sees the loss sees why.
        let (unknown, why) = (Cause::Unknown as u8, cause as u8);
        if self.state() == HELD {
            let _ = self.cause.compare_exchange(unknown, why, Ordering::AcqRel, Ordering::Acquire);
        }
        if self.state.compare_exchange(HELD, LOST, Ordering::SeqCst, Ordering::Acquire).is_err() {
            return;
        }
        event::emit(|| What::Lost { held: self.age() }.of(self.core.name(), &self.claim));
        for hook in self.change() {
            event::guarded(self.core.name(), &self.claim, hook);
        }
    }

    /// Wakes whoever waits for a change, and hands out the hooks, which are of use once.
    fn change(&self) -> Vec<Hook> {
        if !self.watched.load(Ordering::SeqCst) {
            return Vec::new();
        }
        self.changed.notify_waiters();
        std::mem::take(&mut *self.hooks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next change. What is looked at after this call and before awaiting it is not missed.
    fn next_change(&self) -> tokio::sync::futures::Notified<'_> {
        self.watched.store(true, Ordering::SeqCst);
        self.changed.notified()
    }

    async fn lost(&self) -> bool {
        if self.epoch != runtime::epoch() {
            // As in `on_lost`.
            return true;
        }
        loop {
            let mut changed = std::pin::pin!(self.next_change());
            changed.as_mut().enable();
            if self.state() == RELEASED {
                return false;
            }
            if !self.is_held() {
                return true;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = clock::sleep_until(self.valid_until().min(self.hold_end)) => {}
            }
        }
    }

    // ---- what the watchdog does

    /// How early a loss is told before the lease ends, so that the holder hears of it before another can be granted it.
    fn early(&self) -> Duration {
        if mutant!("loss-told-late") {
            return Duration::ZERO;
        }
        (self.ttl() / 4).min(Duration::from_millis(50))
    }

    /// When the end of the longest hold is told: early too, and never for more than a quarter of the hold.
    fn hold_alert_at(&self) -> Instant {
        let hold = self.claim.terms.max_hold.unwrap_or(Duration::MAX);
        self.hold_end.minus(self.early().min(hold / 4))
    }

    fn alert_at(&self) -> Instant {
        if mutant!("never-lost") {
            return Instant::NEVER;
        }
        self.valid_until().minus(self.early()).min(self.hold_alert_at())
    }

    /// When a lost lease is cleaned up at the backend: not before its time, which its holder was promised.
    fn end_at(&self) -> Instant {
        if self.cause.load(Ordering::Acquire) == Cause::Taken as u8 {
            return Instant::START;
        }
        Instant::from_nanos(self.expires.load(Ordering::Acquire)).min(self.hold_end)
    }

    fn renew_at(&self) -> Instant {
        if self.renewing.load(Ordering::Acquire) {
            return Instant::NEVER;
        }
        Instant::from_nanos(self.renew_at.load(Ordering::Acquire))
    }

    /// When the watchdog has something to do with this lease.
    pub(crate) fn next(&self) -> Instant {
        match self.state() {
            HELD => self.renew_at().min(self.alert_at()),
            LOST if !self.settling.load(Ordering::Acquire) => self.end_at(),
            _ => Instant::NEVER,
        }
    }

    /// Does what is due by now, and says whether to renew it.
    pub(crate) fn tend(self: &Arc<Self>, now: Instant, slack: Duration) -> bool {
        if self.state() == HELD && self.alert_at() <= now {
            self.lose(if self.hold_alert_at() <= now { Cause::Held } else { Cause::Expired });
        }
        if self.state() == LOST && self.end_at() <= now {
            self.settle();
        }
        let due = (self.state() == HELD || mutant!("renew-after-release"))
            && self.renew_at() <= now.plus(slack)
            && !self.renewing.swap(true, Ordering::AcqRel);
        if due {
            // From here on `START` is a new suspicion, which the answer that is now asked for doesn't settle.
            self.renew_at.store(Instant::NEVER.nanos(), Ordering::Release);
        }
        due
    }

    /// How much earlier than due this one may be renewed, to share a batch.
    pub(crate) fn slack(&self) -> Duration {
        self.ttl() / 30
    }

    /// Has it renewed then, unless that has been asked for at once in the meantime.
    fn renew_by(&self, then: Instant) {
        let unless_suspect = |at| (at != Instant::START.nanos()).then_some(then.nanos());
        let _ = self.renew_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, unless_suspect);
    }

    /// Has it renewed now.
    pub(crate) fn suspect(&self) {
        self.renew_at.store(Instant::START.nanos(), Ordering::Release);
    }

    /// What to ask the backend for. With no ttl, as the watchdog asks: for a lease that isn't renewed no more than what is
    /// left of it.
    pub(crate) fn due(&self, ttl: Option<Duration>) -> Due {
        let usual = || match self.claim.terms.renew {
            true => self.ttl(),
            false => {
                let left = Instant::from_nanos(self.expires.load(Ordering::Acquire)).left();
                left.max(LOOKED_AT).min(self.ttl())
            }
        };
        Due { grant: self.grant.clone(), ttl: ttl.unwrap_or_else(usual) }
    }

    /// Takes in what a renewal said. Only time and the backend's word end a lease: "don't know" is asked again.
    pub(crate) fn renewed(&self, answer: Result<Renewal>, by_hand: bool) -> Result<()> {
        let now = Instant::now();
        let automatic = self.claim.terms.renew && self.core.backend.renews();
        let result = match answer {
            Ok(Renewal::Lost) if mutant!("loss-ignored") => Ok(()),
            // Looked at, it ends when it would.
            Ok(Renewal::Kept { .. }) if !by_hand && !self.claim.terms.renew => {
                self.renew_by(Instant::NEVER);
                Ok(())
            }
            Ok(Renewal::Kept { since, ttl }) => {
                let since = self.core.not_in_the_future(since, now);
                let (expires, valid_until) = ends(self.core.endless(&self.claim.terms), since, ttl);
                self.ttl.store(nanos(ttl), Ordering::Release);
                self.expires.fetch_max(expires.nanos(), Ordering::AcqRel);
                self.valid_until.fetch_max(valid_until.nanos(), Ordering::AcqRel);
                let next = if automatic { since.plus(ttl / 3) } else { Instant::NEVER };
                self.renew_by(next);
                event::emit(|| What::Renewed.of(self.core.name(), &self.claim));
                Ok(())
            }
            Ok(Renewal::Lost) => {
                self.lose(Cause::Taken);
                Err(())
            }
            Err(_) if mutant!("unknown-is-lost") => {
                self.lose(Cause::Unknown);
                Ok(())
            }
            Err(error) => {
                let pause = self.ttl() / 10;
                let jitter = Duration::from_nanos(fastrand::u64(0..=nanos(pause / 4)));
                let next = if automatic { now.plus(pause + jitter) } else { Instant::NEVER };
                self.renew_by(next);
                event::emit(|| What::RenewalFailed { error: error.to_string() }.of(self.core.name(), &self.claim));
                self.renewing.store(false, Ordering::Release);
                return Err(error.with_key(self.claim.terms.key.clone()));
            }
        };
        self.renewing.store(false, Ordering::Release);
        result.map_err(|()| self.why_not())
    }

    // ---- the end

    fn release(self: &Arc<Self>) -> Op<Ended> {
        if self.epoch != runtime::epoch() {
            return Op::ready(Err(self.why_not()));
        }
        let was_held = self.is_held();
        let mut work = None;
        if was_held && self.state.compare_exchange(HELD, RELEASED, Ordering::SeqCst, Ordering::Acquire).is_ok() {
            event::emit(|| What::Released { held: self.age() }.of(self.core.name(), &self.claim));
            drop(self.change());
            work = self.settlement();
        } else if self.state() == LOST {
            // Its holder has heard of the loss, so the backend needn't keep it any longer.
            self.settle();
            return Op::ready(Ok(Ended::Lost));
        }
        match self.settled.load(Ordering::Acquire) {
            0 => {
                let inner = self.clone();
                Op::going(None, async move {
                    let settled = async {
                        match work {
                            Some(work) => work.await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        () = settled => inner.outcome(inner.settled.load(Ordering::Acquire)),
                        outcome = Box::pin(inner.clone().confirmed()) => outcome,
                    }
                })
            }
            settled => Op::ready(self.outcome(settled)),
        }
    }

    async fn confirmed(self: Arc<Self>) -> Result<Ended> {
        let end = Instant::now().plus(RELEASE_LIMIT);
        loop {
            let mut changed = std::pin::pin!(self.next_change());
            changed.as_mut().enable();
            let settled = self.settled.load(Ordering::Acquire);
            if settled != 0 {
                return self.outcome(settled);
            }
            if end.passed() {
                event::emit(|| What::Unconfirmed.of(self.core.name(), &self.claim));
                return self.outcome(3);
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = clock::sleep_until(end) => {}
            }
        }
    }

    fn outcome(&self, settled: u8) -> Result<Ended> {
        match settled {
            1 => Ok(Ended::Released),
            2 => Ok(Ended::Lost),
            _ => Err(Error::unavailable(format!(
                "the release was not confirmed; the lock ends by itself within its ttl of {:?}",
                self.ttl()
            ))
            .with_key(self.claim.terms.key.clone())
            .with_service(self.core.name())),
        }
    }

    /// Gives it back at the backend, once, in the background.
    fn settle(self: &Arc<Self>) {
        // Dropped, it goes on by itself.
        drop(self.settlement());
    }

    /// What gives it back at the backend, once: done on this thread where the backend is local, else by whoever awaits
    /// it, or in the background when nobody does. It keeps the turn in the gate until that is settled or the ttl has
    /// passed.
    fn settlement(self: &Arc<Self>) -> Option<Settlement> {
        if self.settled.load(Ordering::Acquire) != 0 || self.settling.swap(true, Ordering::AcqRel) {
            return None;
        }
        if let Some(answer) = self.grant.release_now() {
            self.settled_with(Some(answer));
            return None;
        }
        if mutant!("turn-before-release") {
            self.turn.pass();
        }
        let inner = self.clone();
        Some(Settlement(Some(Box::pin(runtime::pending(async move {
            // A renewal may be on its way, or an earlier one have been for longer.
            let expires = Instant::from_nanos(inner.expires.load(Ordering::Acquire));
            let end = Instant::now().plus(inner.ttl()).max(expires);
            let mut pause = Duration::from_millis(20);
            let answer = loop {
                let asked = Instant::now();
                let answer = inner.grant.release().await;
                inner.core.heard(asked, &answer);
                match answer {
                    Ok(answer) => break Some(answer),
                    Err(error) if end.passed() || !error.is_temporary() || mutant!("release-once") => break None,
                    Err(_) => clock::sleep(pause).await,
                }
                pause = (pause * 2).min(Duration::from_secs(1));
            };
            inner.settled_with(answer);
        })))))
    }

    fn settled_with(&self, answer: Option<Renewal>) {
        let settled = match answer {
            Some(Renewal::Kept { .. }) => 1,
            Some(Renewal::Lost) => 2,
            None => 3,
        };
        if settled == 2 && self.state() == RELEASED {
            self.cause.store(Cause::Taken as u8, Ordering::Release);
        }
        // Before anybody can see that it is settled: who sees that may try the lock again.
        self.turn.pass();
        self.settled.store(settled, Ordering::SeqCst);
        drop(self.change());
    }

    /// Nobody can use it any more.
    fn abandon(self: &Arc<Self>) {
        self.let_go();
        if !mutant!("drop-forgets") {
            self.settle();
        }
    }

    /// `Held` → `Released`, with nobody asking for it.
    fn let_go(&self) {
        let held = self.state() == HELD;
        if held && self.state.compare_exchange(HELD, RELEASED, Ordering::SeqCst, Ordering::Acquire).is_ok() {
            event::emit(|| What::Released { held: self.age() }.of(self.core.name(), &self.claim));
            drop(self.change());
        }
    }
}

/// A release under way: of whoever awaits it, of the background when it is dropped.
struct Settlement(Option<BoxFuture<'static, ()>>);

impl Future for Settlement {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.0 else { return Poll::Ready(()) };
        std::task::ready!(work.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(())
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            runtime::spawn_call(work);
        }
    }
}

/// How many releases of one [`Ending`] are under way at a time.
const LANES: usize = 128;

/// Leases that are ended together, and not by their holders.
pub(crate) struct Ending(Vec<Arc<Inner>>);

impl Ending {
    /// Ends them, tells their holders if they are to be told, and begins to give them back, which goes on by itself.
    /// `None`: all that was to be done is done.
    pub(crate) fn begin(leases: Vec<Arc<Inner>>, told: bool) -> Option<Self> {
        for lease in &leases {
            if told && !mutant!("client-closed-in-silence") { lease.lose(Cause::Closed) } else { lease.let_go() }
        }
        // After all were told: what is given back others may have at once.
        let work: Vec<_> = leases.iter().filter_map(Inner::settlement).collect();
        let lanes = if mutant!("client-releases-one-by-one") { 1 } else { LANES.min(work.len()) };
        let work = Arc::new(Mutex::new(work.into_iter()));
        for _ in 0..lanes {
            let work = work.clone();
            runtime::spawn_call(async move {
                let next = || locked(&work).next();
                while let Some(settlement) = next() {
                    settlement.await;
                }
            });
        }
        let open = |lease: &Arc<Inner>| lease.settled.load(Ordering::Acquire) == 0;
        let open: Vec<_> = leases.into_iter().filter(open).collect();
        (!open.is_empty()).then_some(Self(open))
    }

    /// Waits until all are given back.
    pub(crate) async fn confirmed(self) -> Result<()> {
        let mut result = Ok(());
        for lease in self.0 {
            result = result.and(lease.confirmed().await.map(drop));
        }
        result
    }
}
