//! What the processes do with their locks, at random.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::{Client, Kind, Lease, Lock, Op, ReleaseOutcome, Result, State};

use crate::world::{COMMAND, OUTAGE, TTLS, World, ms};

/// How late a call may be in a simulation whose timers have a resolution of a millisecond.
const SLACK: Duration = Duration::from_millis(4);

/// One task of one process.
pub struct Worker {
    pub world: Arc<World>,
    pub p: usize,
    pub client: Client,
    pub rng: fastrand::Rng,
    pub end: Instant,
}

/// When a loss was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Instant>>>);

impl Worker {
    pub async fn work(mut self) {
        while !self.end.passed() {
            let think = self.rng.u64(0..40_000);
            clock::sleep(Duration::from_micros(think)).await;
            match self.rng.u8(0..40) {
                0 => self.look().await,
                1 if self.world.plan.breaks => self.smash().await,
                _ => self.once().await,
            }
        }
    }

    fn key(&mut self) -> String {
        let keys = &self.world.plan.keys;
        keys[self.rng.usize(0..keys.len())].clone()
    }

    fn some(&mut self, one_in: u32) -> bool {
        self.rng.u32(0..one_in) == 0
    }

    /// Awaits a call, and holds it to its limit; a process that was stopped meanwhile may be late by that.
    async fn timed<T>(&self, what: &str, limit: Duration, call: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = call.await;
        let now = Instant::now();
        let thawed = self.thawed();
        let latest = if limit == Duration::MAX { Instant::NEVER } else { start.plus(limit).max(thawed) };
        if now > latest.plus(SLACK) {
            let text = format!("{what} of p{} took {:?}, its limit is {limit:?}", self.p, now - start);
            self.world.fail("I7 bounded", text);
        }
        result
    }

    fn thawed(&self) -> Instant {
        self.world.lock().hosts[self.p].thawed
    }

    async fn look(&mut self) {
        let key = self.key();
        let _ = self.timed("contenders", COMMAND, self.client.contenders(&key)).await;
    }

    async fn smash(&mut self) {
        let key = self.key();
        let broken = self.timed("break_lock", COMMAND, self.client.break_lock(&key)).await;
        if broken.is_ok_and(|broken| broken) {
            self.world.count("broken by us");
        }
    }

    async fn once(&mut self) {
        let key = self.key();
        let ttl = ms(TTLS[self.rng.usize(0..TTLS.len())]);
        let mut lock = self.client.lock(&key).ttl(ttl);
        let hold = if self.some(4) { ttl.mul_f64(1.6) } else { ms(60) };
        let hold = hold.mul_f64(self.rng.f64());
        if self.some(4) {
            lock = lock.auto_renew(false);
        }
        if self.some(8) {
            lock = lock.max_hold(ms(self.rng.u64(30..600)));
        }
        let wait = match self.rng.u8(0..10) {
            0..=4 => None,
            5..=7 => Some(ms(self.rng.u64(1..400))),
            _ => Some(Duration::ZERO),
        };
        if self.some(12) {
            lock = lock.retry((3, ms(20)));
        }
        if let Some(lease) = self.acquire(&lock, wait).await {
            self.hold(lease, hold, lock.options().max_hold).await;
        }
    }

    async fn acquire(&mut self, lock: &Lock, wait: Option<Duration>) -> Option<Arc<Lease>> {
        let retry = lock.options().retry;
        let limit = match wait {
            // Each of its tries may stand still for a while.
            _ if retry.is_some() && self.world.plan.stalls => Duration::MAX,
            _ if retry.is_some() => (OUTAGE + ms(20)) * 3,
            None => Duration::MAX,
            Some(wait) if wait.is_zero() => OUTAGE,
            Some(wait) => wait + ms(100),
        };
        self.world.event(format_args!("p{} wants {} within {wait:?}", self.p, lock.key()));
        let mut op = match retry {
            Some(_) => lock.acquire(),
            None => lock.acquire_for(wait),
        };
        let result = if self.some(4) {
            self.acquire_or_cancel(lock, op, limit).await?
        } else {
            self.timed("acquire", limit, &mut op).await
        };
        let p = self.p;
        let lease = match result {
            Ok(lease) => Arc::new(lease),
            Err(error) => {
                self.world.event(format_args!("p{p} didn't get {}: {}", lock.key(), error.kind().name()));
                if !matches!(error.kind(), Kind::Timeout | Kind::Cancelled | Kind::Backend) {
                    self.world.fail("errors", format!("p{p}: {error:?}"));
                }
                self.world.count(error.kind().name());
                return None;
            }
        };
        let fresh = self.thawed() < Instant::now();
        let mut guard = self.world.lock();
        let inner = &mut *guard;
        inner.check.entered(p, &lease, fresh, &inner.hosts);
        let failed = inner.check.failure.is_some();
        drop(guard);
        if failed {
            self.world.over.notify_one();
        }
        Some(lease)
    }

    /// Gives up at a random moment. `None`: nobody waits for the outcome any more.
    async fn acquire_or_cancel(&mut self, lock: &Lock, mut op: Op<Lease>, limit: Duration) -> Option<Result<Lease>> {
        let most = 1 << self.rng.u32(8..19);
        let patience = Duration::from_micros(self.rng.u64(0..most));
        let started = Instant::now();
        let soon = tokio::time::timeout(patience, &mut op).await;
        if let Ok(result) = soon {
            return Some(result);
        }
        let taking = self.world.lock().hosts[self.p].taking.get(lock.key()).copied();
        // Beside whoever has the turn.
        let waiting = self.client.query().is_ok_and(|all| all.iter().filter(|(key, _)| key == lock.key()).count() > 1);
        self.world.count(match (taking, waiting) {
            (_, true) => "cancelled in the local queue",
            (Some(1..), _) => "cancelled in an attempt",
            _ => "cancelled while pausing",
        });
        self.world.event(format_args!("p{} gives up on {}", self.p, lock.key()));
        if self.some(2) {
            drop(op);
            return None;
        }
        let left = limit.saturating_sub(Instant::now() - started).min(ms(250));
        op.cancel();
        if self.some(4) {
            op.cancel();
            return Some(self.timed("acquire, cancelled twice", SLACK, op).await);
        }
        Some(self.timed("acquire, cancelled", left, op).await)
    }

    async fn hold(&mut self, lease: Arc<Lease>, hold: Duration, limit: Option<Duration>) {
        let told = self.watch(&lease, limit);
        let nonce = crate::server::nonce_of(&lease.token());
        let until = Instant::now().plus(hold);
        loop {
            self.sample(&lease, nonce, &told);
            if until.passed() || self.some(12) {
                break;
            }
            if self.some(6) {
                self.renew(&lease).await;
                continue;
            }
            let slice = hold.mul_f64(self.rng.f64() / 2.0).max(ms(1));
            clock::sleep(slice.min(until.left())).await;
        }
        let key = lease.key().to_owned();
        if lease.state() == State::Lost {
            self.world.count("stale release");
        }
        match self.rng.u8(0..4) {
            0 => {
                self.world.event(format_args!("p{} drops {key}", self.p));
                drop(lease);
            }
            // It goes on by itself.
            1 => drop(lease.release()),
            _ => {
                let lost = lease.state() == State::Lost;
                self.world.event(format_args!("p{} releases {key}", self.p));
                let ended = self.timed("release", ms(5_000), lease.release()).await;
                if lost && ended.as_ref().is_ok_and(|ended| *ended != ReleaseOutcome::Lost) {
                    self.world.fail("I3 honest", format!("p{} released what it had lost", self.p));
                }
                if self.some(3) && lease.release().await.is_ok() != ended.is_ok() {
                    self.world.count("release answered otherwise the second time");
                }
                if lease.is_held() {
                    self.world.fail("I3 honest", "held after its release".to_owned());
                }
            }
        }
    }

    async fn renew(&mut self, lease: &Arc<Lease>) {
        let ttl = self.some(2).then(|| ms(TTLS[self.rng.usize(0..TTLS.len())]));
        let was_held = lease.is_held();
        let renewed = self.timed("renew", COMMAND, lease.renew(ttl)).await;
        match renewed {
            Ok(()) if !was_held => self.world.fail("I4 no foreign effect", "a lost lease was renewed".to_owned()),
            Ok(()) => self.world.count("renewed by hand"),
            Err(error) if error.kind() == Kind::Lost => self.world.count("stale renew"),
            Err(error) if error.is_temporary() => self.world.count("renewal unknown"),
            Err(error) => self.world.fail("errors", format!("renew: {error:?}")),
        }
    }

    /// Watches for the loss in both styles.
    fn watch(&mut self, lease: &Arc<Lease>, limit: Option<Duration>) -> Told {
        let told = Told::default();
        let (world, p, weak, seen) = (self.world.clone(), self.p, Arc::downgrade(lease), told.clone());
        let nonce = crate::server::nonce_of(&lease.token());
        // Of one that stood still between the grant and this, nobody can tell how long it was held.
        let entered = Instant::now();
        let limited = limit.filter(|_| self.thawed() < entered);
        lease.on_lost_here(move || {
            let now = Instant::now();
            if seen.0.lock().unwrap().replace(now).is_some() {
                world.fail("I3 honest", "a loss was told twice".to_owned());
            }
            let Some(lease) = weak.upgrade() else { return };
            let mut inner = world.lock();
            let (told, thawed) = (inner.check.was_told(nonce), inner.hosts[p].thawed);
            inner.check.event(format_args!("p{p} is told that {} is lost", lease.key()));
            inner.check.count(if told { "loss pushed: taken" } else { "loss pushed: expired" });
            let until = lease.valid_until();
            if now >= until && thawed < now {
                let text = format!("p{p} was told of the loss of {} {:?} late", lease.key(), now - until);
                inner.check.fail("I3 honest", text);
            }
            if let Some(limit) = limited.filter(|_| lease.loss().message().contains("max_hold")) {
                let least = limit - (limit / 4).min(lease.ttl() / 4).min(ms(50));
                inner.check.count("held to its limit");
                if now < entered.plus(least) {
                    let text = format!("p{p} held {} for {:?} of {limit:?}", lease.key(), now - entered);
                    inner.check.fail("false loss", text);
                }
            }
            if !told && limit.is_none() && now < until.minus(ms(60)) {
                inner.check.fail("false loss", format!("p{p} was told of a loss {:?} before the end", until - now));
            }
            let failed = inner.check.failure.is_some();
            drop(inner);
            if failed {
                world.over.notify_one();
            }
        });
        if self.some(3) {
            let lost = lease.lost();
            let (world, weak) = (self.world.clone(), Arc::downgrade(lease));
            dlock::runtime::spawn(async move {
                let lost = lost.await.unwrap_or(false);
                let state = weak.upgrade().map(|lease| lease.state());
                if state.is_some_and(|state| (state == State::Lost) != lost) {
                    world.fail("I3 honest", format!("lost() said {lost}, but the state is {state:?}"));
                }
            });
        }
        told
    }

    /// What the lease says of itself, now.
    fn sample(&self, lease: &Arc<Lease>, nonce: u64, told: &Told) {
        let (now, until, thawed) = (Instant::now(), lease.valid_until(), self.thawed());
        let in_time = told.0.lock().unwrap().is_some();
        let held = lease.is_held();
        if held && now >= until {
            let text = format!("p{} holds {} {:?} after its end", self.p, lease.key(), now - until);
            self.world.fail("I3 honest", text);
        }
        if held && self.world.lock().check.was_told(nonce) {
            let text = format!("p{} holds {} though the server said no", self.p, lease.key());
            self.world.fail("I3 honest", text);
        }
        if now > until && !in_time && thawed < until && lease.state() != State::Released {
            let text = format!("p{} was not told of the loss of {} in time", self.p, lease.key());
            self.world.fail("I3 honest", text);
        }
        if held != (lease.valid_for() > Duration::ZERO) || held != lease.check().is_ok() {
            self.world.fail("I3 honest", "is_held, valid_for and check differ".to_owned());
        }
        if !held && now >= until {
            self.world.count("expired while held");
        }
    }
}
