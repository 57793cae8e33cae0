//! Slices of what is measured and of its baseline in turns: which of them is first changes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::base::Base;
use crate::calls::{Calls, Counts};
use crate::tally::{Seen, median, summary};

/// About how long a slice of one client lasts.
const SLICE: Duration = Duration::from_millis(60);

/// Of one client.
pub(crate) fn alone(base: &mut Base, mut run: impl FnMut(u32) -> Outcome<Duration>) -> Outcome<Value> {
    const ROUNDS: usize = 11;
    let mut bare = |count| {
        let begun = Instant::now();
        for _ in 0..count {
            base.pair()?;
        }
        Ok(begun.elapsed())
    };
    let (enough, enough_bare) = (enough(&mut run)?, enough(&mut bare)?);
    let rate = |count: u32, took: Duration| f64::from(count) / took.as_secs_f64();
    let (mut rates, mut bares, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let early = if round % 2 == 0 { Some(rate(enough_bare, bare(enough_bare)?)) } else { None };
        let ours = rate(enough, run(enough)?);
        let base = match early {
            Some(base) => base,
            None => rate(enough_bare, bare(enough_bare)?),
        };
        rates.push(ours);
        bares.push(base);
        ratios.push(ours / base);
    }
    Ok(json!({ "ratio": median(ratios), "pairs_per_s": median(rates), "base_per_s": median(bares) }))
}

/// How many fill a slice.
fn enough(run: &mut impl FnMut(u32) -> Outcome<Duration>) -> Outcome<u32> {
    let mut count = 8;
    loop {
        let took = run(count)?;
        if took > SLICE / 8 {
            let wanted = f64::from(count) * SLICE.as_secs_f64() / took.as_secs_f64();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
            return Ok(wanted.max(8.0) as u32);
        }
        count *= 2;
    }
}

/// Runs one slice.
pub(crate) type Slice<'a> = Box<dyn Fn() -> Outcome<Seen> + 'a>;

/// Of many workers.
pub(crate) fn together(url: &str, base: &Slice<'_>, run: &Slice<'_>) -> Outcome<Value> {
    const ROUNDS: usize = 5;
    let mut server = Calls::of(url)?;
    let remote = server.is_some();
    let mut calls = || server.as_mut().map_or(Ok(Counts::default()), Calls::read);
    let (mut ours, mut bares, mut ratios) = (vec![], vec![], vec![]);
    let (mut requests, mut messages) = (0.0, 0.0);
    for round in 0..ROUNDS {
        let early = if round % 2 == 0 { Some(base()?) } else { None };
        let before = calls()?;
        let seen = run()?;
        let after = calls()?;
        let bare = early.map_or_else(base, Ok)?;
        requests += after.requests - before.requests;
        messages += after.messages - before.messages;
        // On a server's key it is changes of owner that count: who takes it again and again starves the others.
        let of = |slice: &Seen| if remote && seen.switched > 0 { slice.switches } else { slice.grants };
        ratios.push(of(&seen) / of(&bare));
        bares.push(of(&bare));
        ours.push(seen);
    }
    let mut told = summary(&ours);
    told["ratio"] = json!(median(ratios));
    told["base_per_s"] = json!(median(bares));
    let switched: u64 = ours.iter().map(|seen| seen.switched).sum();
    if remote && switched > 0 {
        told["requests_per_switch"] = json!(requests / switched as f64);
        told["messages_per_switch"] = json!(messages / switched as f64);
    }
    Ok(told)
}
