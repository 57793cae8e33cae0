//! The sweep against an independent linearizability checker, on random histories of up to 12 operations.
//!
//! That one knows nothing of time: what may expire is an operation that can take effect at any time from then on, or
//! never, and an acquire of unknown outcome is left out or put in, whichever makes the history legal.

use dlock_harness::history::{Class, History, Line, Phase, Plan, Verb, check};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::Action::{Call, Response};
use todc_utils::linearizability::history::History as Actions;
use todc_utils::specifications::Specification;

const HISTORIES: usize = 100_000;
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
enum Act {
    Acquire { who: u8, fence: u64 },
    Maybe { who: u8 },
    Prove { who: u8 },
    Release { who: u8 },
    Expire { who: u8 },
}

struct FencedLock;

impl Specification for FencedLock {
    /// The owner, and the highest fencing token so far.
    type State = (Option<u8>, u64);
    type Operation = Act;

    fn init() -> Self::State {
        (None, 0)
    }

    fn apply(act: &Act, &(owner, highest): &Self::State) -> (bool, Self::State) {
        match *act {
            Act::Acquire { who, fence } => (owner.is_none() && fence > highest, (Some(who), fence)),
            Act::Maybe { who } => (owner.is_none(), (Some(who), highest)),
            Act::Prove { who } => (owner == Some(who), (owner, highest)),
            Act::Release { who } => (owner == Some(who), (None, highest)),
            Act::Expire { who } => (true, (owner.filter(|&owner| owner != who), highest)),
        }
    }
}

/// One who asks for the lock; its times are those of begin and end.
#[derive(Clone, Copy, Debug)]
struct Client {
    acquire: (u64, u64),
    unknown: bool,
    fence: u64,
    vu: u64,
    renew: Option<(u64, u64, u64)>,
    told: u64,
    release: Option<(u64, u64, Phase)>,
}

impl Client {
    fn operations(&self) -> usize {
        1 + usize::from(self.renew.is_some()) + usize::from(self.release.is_some())
    }

    fn times(&mut self) -> Vec<&mut u64> {
        let mut times = vec![&mut self.acquire.0, &mut self.acquire.1, &mut self.vu, &mut self.told];
        times.extend(self.renew.iter_mut().flat_map(|(begin, end, vu)| [begin, end, vu]));
        times.extend(self.release.iter_mut().flat_map(|(begin, end, _)| [begin, end]));
        times
    }
}

/// A run of a lock that works, then perhaps one thing changed. All times are different.
fn random(rng: &mut fastrand::Rng) -> Vec<Client> {
    let (mut clients, mut now, mut operations) = (Vec::new(), 1_000, 0);
    let limit = rng.usize(3..=12);
    while clients.len() < 10 {
        let client = one(rng, &mut now, clients.len() as u64 + 1);
        operations += client.operations();
        if operations > limit {
            break;
        }
        clients.push(client);
    }
    if rng.u8(..10) < 9 && !clients.is_empty() {
        disturb(rng, &mut clients);
    }
    let mut stamp = 0;
    for time in clients.iter_mut().flat_map(Client::times).filter(|time| **time != NEVER) {
        stamp += 1;
        *time = *time * 64 + stamp;
    }
    clients
}

/// One grant after `now` and what its client does until the lock is free again.
fn one(rng: &mut fastrand::Rng, now: &mut u64, number: u64) -> Client {
    let granted = *now + rng.u64(1..20);
    let told = granted + rng.u64(0..10);
    let mut client = Client {
        acquire: (granted.saturating_sub(rng.u64(0..200)), told),
        unknown: rng.u8(..8) == 0,
        fence: number * 10,
        vu: told + rng.u64(1..40),
        renew: None,
        told: NEVER,
        release: None,
    };
    if client.unknown {
        // It was never applied.
        return client;
    }
    let mut after = told;
    if rng.u8(..4) == 0 {
        let begin = told + rng.u64(1..10).min(client.vu - told);
        let end = begin + rng.u64(1..10);
        client.renew = Some((begin, end, end + rng.u64(1..40)));
        after = end;
    }
    let vu = client.renew.map_or(client.vu, |(_, _, vu)| vu);
    match rng.u8(..4) {
        0 => {
            // Ran out, or was given up; its release comes too late.
            if rng.bool() {
                client.told = after + rng.u64(1..30);
            }
            *now = vu.max(after) + rng.u64(1..5);
            if rng.bool() {
                let begin = vu.max(after) + rng.u64(1..60);
                client.release = Some((begin, begin + rng.u64(1..50), Phase::Fail));
            }
        }
        _ => {
            let begin = after + rng.u64(1..30);
            let freed = begin + rng.u64(1..10);
            let phase = if rng.u8(..6) == 0 { Phase::Unknown } else { Phase::Ok };
            client.release = Some((begin, freed + rng.u64(1..50), phase));
            *now = freed.max(if phase == Phase::Ok { 0 } else { vu });
        }
    }
    client
}

fn disturb(rng: &mut fastrand::Rng, clients: &mut [Client]) {
    let (at, other) = (rng.usize(..clients.len()), rng.usize(..clients.len()));
    match rng.u8(..5) {
        0 => (clients[at].fence, clients[other].fence) = (clients[other].fence, clients[at].fence),
        1 => clients[at].release = clients[at].release.map(|(begin, end, _)| (begin, end, Phase::Ok)),
        2 => {
            clients[at].release = None;
            clients[at].vu += rng.u64(1..60);
        }
        3 => {
            let by = rng.u64(1..40);
            for time in clients[at].times().into_iter().filter(|time| **time != NEVER) {
                *time += by;
            }
        }
        _ => clients[at].vu += rng.u64(1..100),
    }
}

fn swept(clients: &[Client]) -> Vec<Class> {
    let mut history = History::default();
    for (number, client) in clients.iter().enumerate() {
        let p = format!("p{number}");
        let mut add = |t: u64, op: u64, f: Verb, ph: Phase, vu: Option<u64>| {
            let fence = (op == 1 && ph == Phase::Ok).then_some(client.fence);
            let of = u64::from(op != 1);
            let (p, k) = (p.as_str().into(), "k".into());
            let line = Line { t, p, k, op, of, f: Some(f), ph: Some(ph), vu, fence, ..Line::default() };
            history.push(&line).unwrap();
        };
        add(client.acquire.0, 1, Verb::Acquire, Phase::Inv, None);
        let phase = if client.unknown { Phase::Unknown } else { Phase::Ok };
        add(client.acquire.1, 1, Verb::Acquire, phase, Some(client.vu));
        if let Some((begin, end, vu)) = client.renew {
            add(begin, 2, Verb::Renew, Phase::Inv, None);
            add(end, 2, Verb::Renew, Phase::Ok, Some(vu));
        }
        if client.told != NEVER {
            add(client.told, 9, Verb::Told, Phase::Lost, None);
        }
        if let Some((begin, end, phase)) = client.release {
            add(begin, 3, Verb::Release, Phase::Inv, None);
            add(end, 3, Verb::Release, phase, None);
        }
    }
    let verdict = check(&history, &Plan::default());
    let safety = [Class::Overlap, Class::Fence, Class::Foreign];
    verdict.violations.iter().map(|violation| violation.class).filter(|class| safety.contains(class)).collect()
}

fn linearizable(clients: &[Client]) -> bool {
    let unknown = clients.iter().filter(|client| client.unknown).count();
    (0..1_u32 << unknown).any(|applied| {
        let (mut spans, mut seen) = (Vec::new(), 0);
        for (who, client) in (0..).zip(clients) {
            if client.unknown {
                seen += 1;
                if applied >> (seen - 1) & 1 == 1 {
                    spans.push((client.acquire.0, NEVER, Act::Maybe { who }));
                    spans.push((client.acquire.0, NEVER, Act::Expire { who }));
                }
                continue;
            }
            spans.push((client.acquire.0, client.acquire.1, Act::Acquire { who, fence: client.fence }));
            spans.extend(client.renew.map(|(begin, end, _)| (begin, end, Act::Prove { who })));
            let vu = client.renew.map_or(client.vu, |(_, _, vu)| vu);
            spans.push((vu.min(client.told), NEVER, Act::Expire { who }));
            match client.release {
                Some((begin, end, Phase::Ok)) => spans.push((begin, end, Act::Release { who })),
                // From then on it may be free at any time: its client has let go of it.
                Some((begin, _, _)) => spans.push((begin, NEVER, Act::Expire { who })),
                None => {}
            }
        }
        let mut actions = Vec::new();
        for (process, &(begin, end, act)) in spans.iter().enumerate() {
            actions.push((begin, process, Call(act)));
            actions.push((end, process, Response(act)));
        }
        actions.sort_by_key(|&(t, process, _)| (t, process));
        let actions: Vec<_> = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
        actions.is_empty() || WGLChecker::<FencedLock>::is_linearizable(Actions::from_actions(actions))
    })
}

#[test]
fn the_sweep_and_a_linearizability_checker_agree() {
    let (mut legal, mut operations, mut unknown) = (0, 0, 0);
    let mut classes = std::collections::BTreeMap::<_, usize>::new();
    for seed in 0..HISTORIES as u64 {
        let clients = random(&mut fastrand::Rng::with_seed(seed));
        let (found, expected) = (swept(&clients), linearizable(&clients));
        assert_eq!(found.is_empty(), expected, "seed {seed}: the sweep found {found:?} in {clients:#?}");
        legal += usize::from(expected);
        operations += clients.iter().map(Client::operations).sum::<usize>();
        unknown += clients.iter().filter(|client| client.unknown).count();
        for class in found {
            *classes.entry(class).or_default() += 1;
        }
    }
    let illegal = HISTORIES - legal;
    println!(
        "{legal} legal and {illegal} illegal histories of {operations} operations ({unknown} unknown); {classes:?}"
    );
    assert!(legal * 10 >= HISTORIES && illegal * 10 >= HISTORIES, "one kind is too rare to mean anything");
    assert_eq!(classes.len(), 3, "every class is among the illegal ones");
}
