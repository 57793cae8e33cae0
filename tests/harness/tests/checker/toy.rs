//! A lock over a toy server in simulated time, sound or with one deliberate defect: the checker must tell which.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use dlock_harness::history::{Class, History, Line, Phase, Plan, Verb, Verdict, check};

const MS: u64 = 1_000_000;
const TTL: u64 = 60 * MS;
const DRIFT: u64 = 2 * MS;
const CLIENTS: usize = 4;
const SEEDS: u64 = 30;
const LENGTH: u64 = 5_000 * MS;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    None,
    GetThenSet,
    BlindDelete,
    GetThenDelete,
    RenewBySet,
    ValidFromReply,
    NoCheckAfterSlowAcquire,
    NeverReportsLoss,
    FenceOfClientClock,
    NoTtl,
    CallHangs,
    CleansUpNothing,
}

/// What happens next to a client. Requests arrive at the server, replies at the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Begin,
    Again,
    AcquireArrives { sent: u64 },
    SetArrives { sent: u64 },
    Acquired { sent: u64, fence: u64 },
    Expire { vu: u64 },
    Renew,
    RenewArrives { sent: u64 },
    Renewed { sent: u64, ok: bool },
    Validate,
    Release,
    ReleaseArrives,
    DeleteArrives,
    Released { ok: bool },
}

#[derive(Clone, Debug, Default)]
struct Client {
    acquire: u64,
    op: u64,
    token: u64,
    vu: u64,
    /// When its acquire was begun.
    begun: u64,
    /// Whether a call of its is under way.
    busy: bool,
    held: bool,
    told: bool,
    stops: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Server {
    owner: Option<u64>,
    expires: u64,
    fence: u64,
}

struct World {
    rng: fastrand::Rng,
    defect: Defect,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, usize, Step)>>,
    server: Server,
    clients: Vec<Client>,
    history: History,
    tokens: u64,
}

impl World {
    fn new(seed: u64, defect: Defect) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut history = History::default();
        let mut clients = vec![Client::default(); CLIENTS];
        for (number, client) in clients.iter_mut().enumerate() {
            let mut t = rng.u64(0..500 * MS);
            while t < LENGTH {
                let end = t + rng.u64(10 * MS..3 * TTL);
                client.stops.push((t, end));
                for (t, ph) in [(t, Phase::Begin), (end, Phase::End)] {
                    let target = format!("p{number}").into();
                    history.push(&Line { t, nem: "stop".into(), target, ph: Some(ph), ..Line::default() }).unwrap();
                }
                t = end + rng.u64(200 * MS..1_500 * MS);
            }
        }
        let queue = (0..CLIENTS).map(|who| Reverse((1 + who as u64, who, Step::Begin))).collect();
        Self { rng, defect, now: 0, queue, server: Server::default(), clients, history, tokens: 0 }
    }

    /// A way through the network: mostly fast, sometimes longer than the ttl.
    fn way(&mut self) -> u64 {
        let slow = self.rng.u8(..30) == 0;
        self.rng.u64(MS / 10..if slow { 2 * TTL } else { 6 * MS })
    }

    fn after(&mut self, who: usize, wait: u64, step: Step) {
        let here = !matches!(
            step,
            Step::AcquireArrives { .. }
                | Step::SetArrives { .. }
                | Step::RenewArrives { .. }
                | Step::ReleaseArrives
                | Step::DeleteArrives
        );
        let mut t = self.now + wait;
        // A stopped client does nothing until it goes on; what is under way arrives all the same.
        if let Some(stop) = self.clients[who].stops.iter().find(|stop| here && (stop.0..stop.1).contains(&t)) {
            t = stop.1 + 1;
        }
        self.queue.push(Reverse((t, who, step)));
    }

    fn write(&mut self, who: usize, f: Verb, ph: Phase, line: Line<'_>) {
        let client = &self.clients[who];
        let (op, of) = match f {
            Verb::Acquire => (client.acquire, 0),
            Verb::Told => (0, client.acquire),
            _ => (client.op, client.acquire),
        };
        let (p, tok) = (format!("p{who}").into(), client.token.to_string().into());
        let line = Line { t: self.now, p, k: "k".into(), tok, op, of, f: Some(f), ph: Some(ph), ..line };
        self.history.push(&line).unwrap();
    }

    fn back(&mut self, who: usize, f: Verb, ph: Phase, line: Line<'_>) {
        self.clients[who].busy = false;
        self.write(who, f, ph, line);
    }

    fn call(&mut self, who: usize, f: Verb) {
        self.clients[who].op += 1;
        self.clients[who].busy = true;
        if f == Verb::Acquire {
            self.clients[who].acquire = self.clients[who].op;
        }
        let by = Some(self.now + 500 * MS);
        self.write(who, f, Phase::Inv, Line { by, ..Line::default() });
    }

    fn is_free(&self) -> bool {
        self.server.owner.is_none() || self.server.expires <= self.now
    }

    /// Whether the client believes that it has the lock.
    fn believes(&mut self, who: usize) -> bool {
        let never = [Defect::NeverReportsLoss, Defect::NoCheckAfterSlowAcquire].contains(&self.defect);
        let client = &self.clients[who];
        client.held && (never || !client.told && self.now < client.vu)
    }

    fn run(mut self) -> Verdict {
        while let Some(Reverse((t, who, step))) = self.queue.pop().filter(|next| next.0.0 < LENGTH) {
            self.now = t;
            self.step(who, step);
            if self.rng.u8(..8) == 0 {
                let tok = if self.is_free() { String::new() } else { self.server.owner.unwrap_or(0).to_string() };
                let line = Line { t, t2: t, k: "k".into(), tok: tok.into(), srv: "owner".into(), ..Line::default() };
                self.history.push(&line).unwrap();
            }
        }
        // A server that is looked at after all ttls have passed.
        let left = self.server.owner.filter(|_| self.server.expires > LENGTH + 10 * TTL);
        let leftovers = left.map(|_| "k".to_owned()).into_iter().collect();
        let recovery = Some(Duration::from_nanos(2 * TTL + 4 * TTL));
        check(&self.history, &Plan { leftovers, recovery, ..Plan::default() })
    }

    fn step(&mut self, who: usize, step: Step) {
        let mine = Some(self.clients[who].token);
        match step {
            Step::Begin => {
                self.tokens += 1;
                let kept = std::mem::take(&mut self.clients[who]);
                self.clients[who] = Client { op: kept.op, stops: kept.stops, token: self.tokens, ..Client::default() };
                self.call(who, Verb::Acquire);
                self.clients[who].begun = self.now;
                self.step(who, Step::Again);
            }
            Step::Again => {
                let way = self.way();
                self.after(who, way, Step::AcquireArrives { sent: self.now });
            }
            Step::AcquireArrives { sent } => {
                let way = self.way();
                match self.defect {
                    _ if !self.is_free() => self.after(who, way, Step::Acquired { sent, fence: 0 }),
                    Defect::GetThenSet => self.after(who, way, Step::SetArrives { sent }),
                    _ => self.grant(who, sent),
                }
            }
            Step::SetArrives { sent } => self.grant(who, sent),
            Step::Acquired { sent, fence } => self.acquired(who, sent, fence),
            Step::Expire { vu } => {
                let client = &mut self.clients[who];
                if client.held && !client.told && client.vu == vu && self.defect != Defect::NeverReportsLoss {
                    client.told = true;
                    self.write(who, Verb::Told, Phase::Lost, Line::default());
                }
            }
            Step::Validate => {
                if self.clients[who].held && !self.clients[who].busy {
                    self.call(who, Verb::Validate);
                    let (ph, vu) = (if self.believes(who) { Phase::Ok } else { Phase::Fail }, self.clients[who].vu);
                    self.back(who, Verb::Validate, ph, Line { vu: Some(vu), ..Line::default() });
                }
            }
            Step::Renew => {
                self.call(who, Verb::Renew);
                let way = self.way();
                self.after(who, way, Step::RenewArrives { sent: self.now });
            }
            Step::RenewArrives { sent } => {
                let ok = self.server.owner == mine && !self.is_free() || self.defect == Defect::RenewBySet;
                if ok {
                    (self.server.owner, self.server.expires) = (mine, self.now + TTL);
                }
                let way = self.way();
                self.after(who, way, Step::Renewed { sent, ok });
            }
            Step::Renewed { sent, ok } => {
                let counts = ok && self.believes(who);
                if counts {
                    self.validate_until(who, sent + TTL - DRIFT);
                }
                // An unconditional SET says so whatever the client thinks.
                let ok = counts || ok && self.defect == Defect::RenewBySet;
                let vu = counts.then_some(self.clients[who].vu);
                self.back(who, Verb::Renew, if ok { Phase::Ok } else { Phase::Fail }, Line { vu, ..Line::default() });
                let wait = self.rng.u64(0..TTL / 2);
                self.after(who, wait, Step::Release);
            }
            Step::Release => {
                self.call(who, Verb::Release);
                self.clients[who].held = false;
                let way = self.way();
                self.after(who, way, Step::ReleaseArrives);
            }
            Step::ReleaseArrives => {
                let ok = self.server.owner == mine && !self.is_free() || self.defect == Defect::BlindDelete;
                let way = self.way();
                if ok && self.defect == Defect::GetThenDelete {
                    return self.after(who, way, Step::DeleteArrives);
                }
                if ok {
                    self.server.owner = None;
                }
                self.after(who, way, Step::Released { ok });
            }
            Step::DeleteArrives => {
                self.server.owner = None;
                let way = self.way();
                self.after(who, way, Step::Released { ok: true });
            }
            Step::Released { ok } => {
                self.back(who, Verb::Release, if ok { Phase::Ok } else { Phase::Fail }, Line::default());
                let wait = self.rng.u64(0..20 * MS);
                self.after(who, wait, Step::Begin);
            }
        }
    }

    fn grant(&mut self, who: usize, sent: u64) {
        let orphan = self.defect == Defect::NoTtl && self.now - sent > TTL / 2;
        let ttl = if orphan { u64::MAX / 2 } else { TTL };
        self.server.owner = Some(self.clients[who].token);
        self.server.expires = self.now + ttl;
        self.server.fence += 1;
        let skew = [0, 40, 7, 90][who] * MS;
        let fence = if self.defect == Defect::FenceOfClientClock { self.now + skew } else { self.server.fence };
        let way = self.way();
        self.after(who, way, Step::Acquired { sent, fence });
    }

    fn acquired(&mut self, who: usize, sent: u64, fence: u64) {
        let gives_up = self.now - sent > TTL / 2;
        if fence != 0 && gives_up && [Defect::NoTtl, Defect::CleansUpNothing].contains(&self.defect) {
            self.back(who, Verb::Acquire, Phase::Fail, Line { err: "timeout".into(), ..Line::default() });
            // Without a cleanup it is free after its ttl, if it has one.
            return self.after(who, 5 * MS, Step::Begin);
        }
        if self.defect == Defect::CallHangs && self.rng.u8(..20) == 0 {
            return;
        }
        let since = if self.defect == Defect::ValidFromReply { self.now } else { sent };
        let vu = since + TTL - DRIFT;
        let late = self.now >= vu && self.defect != Defect::NoCheckAfterSlowAcquire;
        if (fence == 0 || late) && self.now - self.clients[who].begun < 300 * MS {
            let wait = self.rng.u64(0..10 * MS);
            return self.after(who, wait, Step::Again);
        }
        if fence == 0 || late {
            self.back(who, Verb::Acquire, Phase::Fail, Line { err: "timeout".into(), ..Line::default() });
            let wait = self.rng.u64(0..10 * MS);
            return self.after(who, wait, Step::Begin);
        }
        self.clients[who].held = true;
        self.back(who, Verb::Acquire, Phase::Ok, Line { fence: Some(fence), vu: Some(vu), ..Line::default() });
        self.validate_until(who, vu);
        for _ in 0..2 {
            let wait = self.rng.u64(0..2 * TTL);
            self.after(who, wait, Step::Validate);
        }
        let wait = self.rng.u64(0..3 * TTL / 2);
        let next = if self.rng.bool() { Step::Renew } else { Step::Release };
        self.after(who, wait, next);
    }

    fn validate_until(&mut self, who: usize, vu: u64) {
        self.clients[who].vu = vu;
        let wait = vu.saturating_sub(self.now);
        self.after(who, wait, Step::Expire { vu });
    }
}

/// What was found in all runs, and how many holds they had.
fn found(defect: Defect) -> (BTreeMap<Class, usize>, u64) {
    let (mut classes, mut holds) = (BTreeMap::new(), 0);
    for seed in 0..SEEDS {
        let verdict = World::new(seed, defect).run();
        holds += verdict.holds;
        for violation in &verdict.violations {
            *classes.entry(violation.class).or_default() += 1;
            assert!(defect != Defect::None, "seed {seed}: {violation:#?}");
        }
    }
    println!("{defect:?}: {holds} holds, {classes:?}");
    (classes, holds)
}

#[test]
fn a_sound_lock_is_found_sound() {
    let (classes, holds) = found(Defect::None);
    assert!(classes.is_empty() && holds > 1_000, "{classes:?} in {holds} holds");
}

#[test]
fn broken_locks_are_found_broken() {
    use Class::{Expired, Fence, Foreign, LateLoss, Orphan, Overdue, Overlap, Stalled};
    let must = [
        (Defect::GetThenSet, Overlap),
        (Defect::BlindDelete, Overlap),
        (Defect::BlindDelete, Foreign),
        (Defect::GetThenDelete, Overlap),
        (Defect::RenewBySet, Foreign),
        (Defect::ValidFromReply, Overlap),
        (Defect::NoCheckAfterSlowAcquire, Expired),
        (Defect::NeverReportsLoss, LateLoss),
        (Defect::NeverReportsLoss, Expired),
        (Defect::FenceOfClientClock, Fence),
        (Defect::NoTtl, Stalled),
        (Defect::NoTtl, Orphan),
        (Defect::CallHangs, Overdue),
    ];
    for (defect, class) in must {
        let (classes, _) = found(defect);
        assert!(classes.contains_key(&class), "{defect:?}: no {class:?} among {classes:?}");
    }
}

/// With a ttl, what was forgotten is free in time: nothing is broken that anybody was promised.
#[test]
fn a_ttl_makes_up_for_a_missing_cleanup() {
    let (classes, _) = found(Defect::CleansUpNothing);
    assert!(classes.is_empty(), "{classes:?}");
}
