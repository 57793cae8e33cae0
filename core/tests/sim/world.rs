//! One run's world: its plan, its server, its processes, its network and the checker, behind one mutex that is never
//! held while anything else runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dlock::Client;
use dlock::clock::{self, Instant};
use dlock::contract::Context;
use dlock::testing::Process;
use tokio::sync::{Notify, oneshot};

use crate::check::Check;
use crate::server::{Effects, Push, Reply, Request, Server};

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How long a request may be on its way before the server must refuse it.
pub const REQUEST_LIFE: Duration = Duration::from_millis(400);
/// How long a client waits for an answer.
pub const COMMAND: Duration = Duration::from_millis(300);
/// `connect_timeout` of every client.
pub const OUTAGE: Duration = Duration::from_millis(1_000);
/// The ttls that are asked for.
pub const TTLS: [u64; 4] = [150, 300, 600, 1_000];
pub const LONGEST_TTL: Duration = Duration::from_millis(1_000);

/// What this seed does to the system.
#[derive(Clone, Debug)]
pub struct Plan {
    pub processes: usize,
    pub tasks: usize,
    pub keys: Vec<String>,
    pub handover: bool,
    pub skew: i64,
    /// Probabilities of what befalls a message.
    pub lose: f64,
    pub refuse: f64,
    pub slow: f64,
    pub beyond: f64,
    pub twice: f64,
    pub lose_push: f64,
    /// How often a countdown began before its request, as that of a session or of a place in a queue.
    pub aged: f64,
    pub stalls: bool,
    pub kills: bool,
    pub cuts: bool,
    pub pauses: bool,
    pub breaks: bool,
    pub data_loss: bool,
    pub work: Duration,
}

impl Plan {
    pub fn new(rng: &mut fastrand::Rng) -> Self {
        let calm = rng.u8(0..6) == 0;
        let mut p = |most: f64| {
            if calm || rng.bool() { 0.0 } else { rng.f64() * most }
        };
        let (lose, refuse, slow, beyond, twice, lose_push) = (p(0.15), p(0.05), p(0.3), p(0.08), p(0.2), p(0.5));
        let aged = p(0.5);
        let mut yes = |of: u8| !calm && rng.u8(0..of) == 0;
        let (stalls, kills, cuts, pauses) = (yes(2), yes(4), yes(4), yes(5));
        let (breaks, data_loss) = (yes(4), yes(10));
        Self {
            processes: rng.usize(2..=3),
            tasks: rng.usize(1..=3),
            keys: (0..rng.usize(1..=2)).map(|i| format!("key{i}")).collect(),
            handover: rng.bool(),
            skew: [-9_900, 0, 9_900][rng.usize(0..3)],
            lose,
            refuse,
            slow,
            beyond,
            twice,
            lose_push,
            aged,
            stalls,
            kills,
            cuts,
            pauses,
            breaks,
            data_loss,
            work: ms(rng.u64(1_500..=3_500)),
        }
    }
}

/// Where a server's message for one claim arrives.
#[derive(Default)]
pub struct Mailbox {
    pub grant: Mutex<Option<(u64, Instant)>>,
    pub notify: Notify,
}

pub struct Host {
    pub life: Process,
    pub client: Option<Client>,
    pub alarm: Context,
    pub dead: bool,
    pub stopped: bool,
    pub thawed: Instant,
    pub cut: Instant,
    pub mail: BTreeMap<u64, Arc<Mailbox>>,
    /// Takes on their way, by key.
    pub taking: BTreeMap<String, usize>,
}

pub struct Inner {
    pub server: Server,
    pub hosts: Vec<Host>,
    pub check: Check,
    pub net: fastrand::Rng,
    pub faults: bool,
    pub working: BTreeSet<(usize, usize)>,
}

pub struct World {
    pub plan: Plan,
    pub seed: u64,
    pub mutant: Option<&'static str>,
    pub over: Notify,
    inner: Mutex<Inner>,
}

/// What became of a request.
pub enum Answer {
    Reply(Reply),
    /// Surely not executed.
    Refused,
    Unknown,
}

impl World {
    pub fn new(seed: u64, mutant: Option<&'static str>) -> Arc<Self> {
        let plan = Plan::new(&mut fastrand::Rng::with_seed(seed ^ 0x9e37_79b9));
        let server = Server::new(plan.handover, plan.skew, mutant);
        Arc::new(Self {
            seed,
            mutant,
            over: Notify::new(),
            inner: Mutex::new(Inner {
                server,
                hosts: Vec::new(),
                check: Check::default(),
                net: fastrand::Rng::with_seed(seed ^ 0x5bd1_e995),
                faults: true,
                working: BTreeSet::new(),
            }),
            plan,
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn is(&self, mutant: &str) -> bool {
        self.mutant == Some(mutant)
    }

    /// Ends the run with this violation.
    pub fn fail(&self, check: &'static str, what: String) {
        self.lock().check.fail(check, what);
        self.over.notify_one();
    }

    pub fn count(&self, what: &'static str) {
        self.lock().check.count(what);
    }

    pub fn event(&self, what: std::fmt::Arguments<'_>) {
        self.lock().check.event(what);
    }

    fn delay(&self) -> Duration {
        let mut inner = self.lock();
        let (faults, net) = (inner.faults, &mut inner.net);
        let roll = if faults { net.f64() } else { 1.0 };
        if roll < self.plan.beyond {
            ms(net.u64(100..=1_500))
        } else if roll < self.plan.beyond + self.plan.slow {
            ms(net.u64(5..=80))
        } else {
            Duration::from_micros(net.u64(100..=3_000))
        }
    }

    fn chance(&self, p: f64) -> bool {
        let mut inner = self.lock();
        inner.faults && p > 0.0 && inner.net.f64() < p
    }

    /// How long before its request the countdown of a grant is to have begun; now and then it is over already.
    pub fn age(&self, ttl: Duration) -> Duration {
        if !self.chance(self.plan.aged) {
            return Duration::ZERO;
        }
        let mut inner = self.lock();
        let most = if inner.net.u8(0..8) == 0 { 1.2 } else { 0.6 };
        ttl.mul_f64(inner.net.f64() * most)
    }

    fn is_cut(&self, p: usize) -> bool {
        !self.lock().hosts[p].cut.passed()
    }

    /// Sends a request and waits for its answer.
    pub async fn call(self: &Arc<Self>, p: usize, request: Request, limit: Duration) -> Answer {
        if self.chance(self.plan.refuse) {
            clock::sleep(ms(2)).await;
            return Answer::Refused;
        }
        let (tell, told) = oneshot::channel();
        let request = Arc::new(request);
        if self.chance(self.plan.twice) {
            let late = self.delay() + self.delay() + ms(self.lock().net.u64(0..300));
            tokio::spawn(self.clone().deliver(p, request.clone(), late, None));
        }
        tokio::spawn(self.clone().deliver(p, request, self.delay(), Some(tell)));
        match tokio::time::timeout(limit.min(COMMAND).max(ms(1)), told).await {
            Ok(Ok(reply)) => Answer::Reply(reply),
            _ => Answer::Unknown,
        }
    }

    async fn deliver(
        self: Arc<Self>,
        p: usize,
        request: Arc<Request>,
        delay: Duration,
        tell: Option<oneshot::Sender<Reply>>,
    ) {
        clock::sleep(delay).await;
        if self.is_cut(p) || self.chance(self.plan.lose) {
            return self.silence(tell).await;
        }
        loop {
            let paused = self.lock().server.paused;
            if paused.passed() {
                break;
            }
            clock::sleep_until(paused).await;
        }
        let reply = self.execute(p, &request);
        clock::sleep(self.delay()).await;
        if self.is_cut(p) || self.chance(self.plan.lose) {
            return self.silence(tell).await;
        }
        if let Some(tell) = tell {
            let _ = tell.send(reply);
        }
    }

    /// Lost: the sender may notice (a connection cut) or not.
    async fn silence(&self, tell: Option<oneshot::Sender<Reply>>) {
        let noticed = self.lock().net.bool();
        if let (Some(tell), false) = (tell, noticed) {
            clock::sleep(COMMAND * 2).await;
            drop(tell);
        }
    }

    fn execute(self: &Arc<Self>, p: usize, request: &Request) -> Reply {
        let now = Instant::now();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (reply, effects) = inner.server.execute(now, p, request);
        inner.check.executed(p, request, &reply);
        if let Request::Take { claim, .. } = request {
            inner.check.beside_itself(now, p, &claim.options.name, claim.nonce, &mut inner.server);
        }
        let pushes = self.affected(inner, now, effects);
        let failed = inner.check.failure.is_some();
        drop(guard);
        if failed {
            self.over.notify_one();
        }
        for (p, push) in pushes {
            self.push(p, push);
        }
        reply
    }

    fn affected(&self, inner: &mut Inner, now: Instant, effects: Effects) -> Vec<(usize, Push)> {
        for nonce in effects.revoked {
            inner.check.revoke(nonce, "break");
        }
        if let Some(key) = effects.foreign {
            inner.check.fail("I4 no foreign effect", format!("another's hold of {key} was changed"));
        }
        for (key, nonce, fence) in effects.granted {
            inner.check.granted(now, &key, nonce, fence, &inner.hosts);
        }
        effects.pushes
    }

    /// All data of the server is gone.
    pub fn lose_data(&self) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        for nonce in inner.server.lose_data(Instant::now(), &self.plan.keys) {
            inner.check.revoke(nonce, "data loss");
        }
    }

    fn push(self: &Arc<Self>, p: usize, push: Push) {
        let (lost, delay) = (self.chance(self.plan.lose_push), self.delay());
        if lost {
            return self.count("push lost");
        }
        let world = self.clone();
        let life = self.lock().hosts[p].life.clone();
        tokio::spawn(async move {
            clock::sleep(delay).await;
            if world.is_cut(p) {
                return;
            }
            life.run(async move { world.arrive(p, push) }).await;
        });
    }

    fn arrive(&self, p: usize, push: Push) {
        let mail = |nonce| self.lock().hosts[p].mail.get(&nonce).cloned();
        match push {
            Push::Granted { nonce, fence, stamp } => {
                if let Some(mail) = mail(nonce) {
                    *mail.grant.lock().unwrap() = Some((fence, stamp));
                    mail.notify.notify_one();
                }
            }
            Push::RetryHint { nonce } => {
                if let Some(mail) = mail(nonce) {
                    mail.notify.notify_one();
                }
            }
            Push::Broken { key } => {
                let alarm = self.lock().hosts[p].alarm.clone();
                alarm.suspect(&key);
            }
        }
    }
}
