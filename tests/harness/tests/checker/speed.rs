//! How long a million holds take; a tenth of them in a build that isn't optimised.

use std::time::Instant;

use dlock_harness::history::{Event, History, Name, Phase, Plan, Verb, check};

#[test]
fn a_million_holds() {
    let holds = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut history = History::default();
    let processes = ["a", "b", "c", "d", "e", "f"].map(|name| history.name(name));
    let keys = ["k0", "k1"].map(|name| history.name(name));
    for number in 0..holds {
        let at = usize::try_from(number).expect("a small number");
        let (p, k, t) = (processes[at % 6], keys[at % 2], (number + 1) * 1_000);
        let tok = history.name(&format!("dlock:host:{number}"));
        let add = |t, op, of, ph, f, vu: Option<u64>| {
            let fence = vu.map(|_| number + 1);
            Event { t, p, w: 0, op, ph, f, k, of, tok, fence, vu, auto: false, by: Some(t + 5_000), err: Name::NONE }
        };
        let (first, second) = (number * 2 + 1, number * 2 + 2);
        history.events.extend([
            add(t - 900, first, 0, Phase::Inv, Verb::Acquire, None),
            add(t, first, 0, Phase::Ok, Verb::Acquire, Some(t + 1_500)),
            add(t + 900, second, first, Phase::Inv, Verb::Release, None),
            add(t + 950, second, first, Phase::Ok, Verb::Release, None),
        ]);
    }
    let begun = Instant::now();
    let verdict = check(&history, &Plan::default());
    println!("{holds} holds, {} events: checked in {:?}", history.events.len(), begun.elapsed());
    assert_eq!((verdict.violations.len(), verdict.holds), (0, holds), "{:?}", verdict.violations.first());
}
