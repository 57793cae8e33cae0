//! The deterministic simulator: the shipped gate, acquire loop, lease and watchdog against a server that is the
//! executable specification, over a network that delays, loses and doubles, with processes that stand still and die.
//! Its only fakes are clock, backend and random source; the same seed gives the same run.
//!
//! `DLOCK_SIM_SEEDS=n` sets how many seeds are run, `DLOCK_SIM_SEED=n` runs one and shows its last events, and
//! `DLOCK_SIM_MUTANT=name` runs it, or the hunt for defects, with that deliberate defect alone.

#![allow(unreachable_pub, reason = "a test binary, nothing of which is public")]

mod backend;
mod check;
mod nemesis;
mod server;
mod work;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dlock::Config;
use dlock::clock::{self, Instant};
use dlock::drivers::DRIVERS;
use dlock::testing::{self, MUTANTS, Process};

use backend::Remote;
use work::Worker;
use world::{Host, LONGEST_TTL, OUTAGE, REQUEST_LIFE, World, ms};

/// Deliberate defects of the fake backend and its server, which show that the judge sees what a backend can do wrong.
const BACKEND_MUTANTS: &[(&str, &str)] = &[
    ("server-release-unchecked", "a release doesn't ask who owns the lock"),
    ("server-renew-unchecked", "a renewal doesn't ask who owns the lock"),
    ("server-fence-not-stepped", "two grants in a row have one fence"),
    ("server-fence-not-floored", "fences begin anew after a loss of data"),
    ("server-accepts-late", "a request is executed however late it comes"),
    ("backend-counts-from-last-sent", "a grant from the queue counts from the last request sent"),
    ("backend-forgets-unknown", "a take without an answer is taken for refused"),
];

/// What must have happened at least once, or the run has shown little.
const COVERED: &[&str] = &[
    "held",
    "contended",
    "handed over",
    "push lost",
    "timeout",
    "cancelled",
    "cancelled in the local queue",
    "cancelled in an attempt",
    "cancelled while pausing",
    "expired while held",
    "stale release",
    "stale renew",
    "renewed by hand",
    "renewed in a batch",
    "renewal unknown",
    "unknown settled as granted",
    "unknown settled as not granted",
    "loss pushed: taken",
    "loss pushed: expired",
    "late grant",
    "aged",
    "held to its limit",
    "break",
    "data loss",
    "stalled",
    "killed",
];

struct Outcome {
    failure: Option<(&'static str, String)>,
    counts: BTreeMap<&'static str, u64>,
    events: Vec<String>,
    trace: u64,
    plan: String,
}

/// Runs one seed.
fn run(seed: u64, mutant: Option<&'static str>) -> Outcome {
    let world = World::new(seed, mutant);
    let played = world.clone();
    testing::simulate(seed, mutant, async move {
        tokio::select! {
            biased;
            () = played.over.notified() => {}
            () = play(&played) => {}
        }
    });
    let mut inner = world.lock();
    Outcome {
        failure: inner.check.failure.take(),
        counts: std::mem::take(&mut inner.check.counts),
        events: std::mem::take(&mut inner.check.events).into(),
        trace: inner.check.trace(),
        plan: format!("{:?}", world.plan),
    }
}

async fn play(world: &Arc<World>) {
    for _ in 0..world.plan.processes {
        start(world);
    }
    let end = Instant::now().plus(world.plan.work);
    tokio::spawn(watch(world.clone()));
    nemesis::nemesis(world.clone(), end).await;
    // From here on nothing new goes wrong, and everybody who waits must get through.
    world.lock().faults = false;
    let limit = Instant::now().plus(LONGEST_TTL * 8 + REQUEST_LIFE + OUTAGE * 2);
    while !world.lock().working.is_empty() {
        if limit.passed() {
            let waiting = world.lock().working.clone();
            return world.fail("progress", format!("still waiting, with nothing in the way: {waiting:?}"));
        }
        clock::sleep(ms(20)).await;
    }
    clock::sleep(LONGEST_TTL * 2 + REQUEST_LIFE + OUTAGE + ms(2_000)).await;
    let mut guard = world.lock();
    let inner = &mut *guard;
    if !inner.server.is_empty(Instant::now()) {
        inner.check.fail("I6 no orphan", "the server's table isn't empty at the end".to_owned());
    }
    let live = inner.hosts.iter().filter(|host| !host.dead);
    let clients: Vec<_> = live.filter_map(|host| host.client.clone()).collect();
    drop(guard);
    for (client, key) in clients.iter().flat_map(|c| world.plan.keys.iter().map(move |key| (c, key))) {
        if testing::has_turn(client, key) {
            world.fail("I6 no orphan", format!("the turn for {key} is taken at the end"));
        }
    }
}

/// Looks all the time for what no process owns up to any more.
async fn watch(world: Arc<World>) {
    loop {
        clock::sleep(ms(15)).await;
        let hosts = world.lock().hosts.len();
        for p in 0..hosts {
            let client = match &world.lock().hosts[p] {
                host if host.dead || host.stopped => None,
                host => host.client.clone(),
            };
            let Some(client) = client else { continue };
            for key in &world.plan.keys {
                if testing::has_turn(&client, key) {
                    continue;
                }
                let mut guard = world.lock();
                let inner = &mut *guard;
                inner.check.no_orphan(Instant::now(), p, key, None, &mut inner.server);
                if inner.check.failure.is_some() {
                    world.over.notify_one();
                }
            }
        }
    }
}

/// Starts a process and its tasks.
fn start(world: &Arc<World>) {
    let life = Process::default();
    let p = world.lock().hosts.len();
    let mut alarm = None;
    let config = Config::from_url("memory://simulated?connect_timeout=1s").unwrap();
    assert_eq!(config.connect_timeout(), OUTAGE);
    let mut capabilities = testing::remote_capabilities();
    (capabilities.ttl, capabilities.processes) = (true, true);
    let client = testing::client_with(capabilities, config, |raised| {
        alarm = Some(raised);
        let world = world.clone();
        Ok(Arc::new(Remote { world, p }))
    });
    let client = client.unwrap();
    world.lock().hosts.push(Host {
        life: life.clone(),
        client: Some(client.clone()),
        alarm: alarm.unwrap(),
        dead: false,
        stopped: false,
        thawed: Instant::START,
        cut: Instant::START,
        mail: BTreeMap::new(),
        taking: BTreeMap::new(),
    });
    let end = Instant::from_nanos(1_000_000_000_000).plus(world.plan.work);
    for task in 0..world.plan.tasks {
        world.lock().working.insert((p, task));
        let worker = Worker {
            world: world.clone(),
            p,
            client: client.clone(),
            rng: fastrand::Rng::with_seed(world.seed.wrapping_mul(31) ^ (p as u64) << 32 ^ task as u64),
            end,
        };
        let done = world.clone();
        tokio::spawn(life.run(async move {
            worker.work().await;
            done.lock().working.remove(&(p, task));
        }));
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn explain(seed: u64, mutant: Option<&str>, outcome: &Outcome) -> String {
    let (check, what) = outcome.failure.as_ref().expect("a violation");
    let with = mutant.map(|name| format!("DLOCK_SIM_MUTANT={name} ")).unwrap_or_default();
    format!(
        "seed {seed}: {check}: {what}\n{}\n{}\nreplay: {with}DLOCK_SIM_SEED={seed} cargo test -p dlock-core --test sim \
         replay -- --nocapture",
        outcome.plan,
        outcome.events.join("\n")
    )
}

/// Runs seeds on as many threads as there are cores, until all are done or `stop` says so of one.
fn sweep(seeds: u64, mutant: Option<&'static str>, judge: impl Fn(u64, &Outcome) -> bool + Sync) {
    let next = AtomicU64::new(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds || !judge(seed, &run(seed, mutant)) {
                        next.fetch_max(seeds + 1, Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn every_seed_holds() {
    let seeds = number("DLOCK_SIM_SEEDS").unwrap_or(300);
    let counts = std::sync::Mutex::new(BTreeMap::<&str, u64>::new());
    let failures = std::sync::Mutex::new(Vec::new());
    let begun = std::time::Instant::now();
    sweep(seeds, None, |seed, outcome| {
        for (what, n) in &outcome.counts {
            *counts.lock().unwrap().entry(what).or_default() += n;
        }
        if outcome.failure.is_some() {
            failures.lock().unwrap().push(explain(seed, None, outcome));
        }
        failures.lock().unwrap().len() < 3
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let counts = counts.into_inner().unwrap();
    say(&format!("{seeds} seeds in {:?}: {counts:#?}", begun.elapsed()));
    let missing: Vec<_> = COVERED.iter().filter(|what| !counts.contains_key(**what)).collect();
    assert!(missing.is_empty() || seeds < 300, "never happened in {seeds} seeds: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 7, 42, 1_000, 4_711, 99_999] {
        let (one, two) = (run(seed, None), run(seed, None));
        assert_eq!(one.events, two.events, "seed {seed}");
        assert_eq!(one.trace, two.trace, "seed {seed}");
    }
}

/// A defect that no seed shows would show that the judge is blind to it.
#[test]
fn every_mutant_is_caught() {
    let seeds = number("DLOCK_SIM_MUTANT_SEEDS").unwrap_or(10_000);
    let only = std::env::var("DLOCK_SIM_MUTANT").ok();
    let mut survivors = Vec::new();
    // Those of a real backend are for tests with its server, those of the process for tests with threads and forks, those
    // of clients and their end for tests/close.rs, those of the modes for tests/modes.rs.
    let is_elsewhere = |first: &str| {
        ["process", "client", "modes"].contains(&first) || DRIVERS.iter().any(|driver| first == driver.schema.name)
    };
    let of_the_core = MUTANTS.iter().filter(|(name, _)| !name.split('-').next().is_some_and(is_elsewhere));
    for (name, what) in of_the_core.chain(BACKEND_MUTANTS) {
        if only.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        let caught = std::sync::Mutex::new(BTreeMap::new());
        sweep(seeds, Some(name), |seed, outcome| {
            if let Some((check, text)) = &outcome.failure {
                caught.lock().unwrap().insert(seed, format!("{check}: {text}"));
            }
            outcome.failure.is_none()
        });
        match caught.into_inner().unwrap().first_key_value() {
            Some((seed, how)) => say(&format!("{name}: seed {seed}, {how}")),
            None => survivors.push(format!("{name} ({what})")),
        }
    }
    assert!(survivors.is_empty(), "survived {seeds} seeds: {}", survivors.join(", "));
}

/// Replays the seed that `DLOCK_SIM_SEED` names.
#[test]
fn replay() {
    let Some(seed) = number("DLOCK_SIM_SEED") else { return };
    let wanted = std::env::var("DLOCK_SIM_MUTANT").unwrap_or_default();
    let known = MUTANTS.iter().chain(BACKEND_MUTANTS).map(|(name, _)| *name);
    let mutant = known.into_iter().find(|name| *name == wanted);
    let outcome = run(seed, mutant);
    if outcome.failure.is_some() {
        panic!("{}", explain(seed, mutant, &outcome));
    }
    say(&format!("seed {seed} holds\n{}\n{}", outcome.plan, outcome.events.join("\n")));
}

#[allow(clippy::print_stdout, reason = "shown by cargo test with --nocapture")]
fn say(text: &str) {
    println!("{text}");
}
