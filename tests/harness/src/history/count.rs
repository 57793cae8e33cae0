//! The counters of a run. A check that saw no loss proves nothing about losses.

use rustc_hash::FxHashMap;

use super::check::{Judge, yes};
use super::event::{Name, Phase, Verb};
use super::hold::End;

/// The counters that always exist, with 0 if nothing was seen.
const ALWAYS: &[&str] = &[
    "contended acquires",
    "expiries while held",
    "stale releases",
    "stale renews",
    "unknown outcomes",
    "loss reports",
    "reconnects",
    "fence gaps",
    "drops",
    "cancelled acquires",
    "timed-out acquires",
    "busy tries",
    "killed holders",
    "excused",
];

pub(crate) fn check(judge: &mut Judge<'_>) {
    for name in ALWAYS {
        judge.verdict.count(name, 0);
    }
    calls(judge);
    let history = judge.table.history;
    for fault in &history.faults {
        judge.verdict.count(&format!("fault {}", history.text(fault.what)), 1);
    }
    judge.verdict.faults = history.faults.len() as u64;
    judge.verdict.holds = judge.table.holds.len() as u64;
    let killed = judge.table.holds.iter().filter(|hold| hold.why == End::Killed && hold.is_definite()).count();
    judge.verdict.count("killed holders", killed as u64);
    judge.verdict.count("server samples", history.samples.len() as u64);
    gaps(judge);
    let counts = &judge.verdict.counts;
    let missing = judge.plan.required.iter().filter(|name| counts.get(*name).is_none_or(|&count| count == 0));
    let present = judge.plan.forbidden.iter().filter(|name| counts.get(*name).is_some_and(|&count| count > 0));
    (judge.verdict.missing, judge.verdict.present) = (missing.cloned().collect(), present.cloned().collect());
}

fn calls(judge: &mut Judge<'_>) {
    let mut counts = FxHashMap::<&str, u64>::default();
    let mut errors = FxHashMap::<Name, u64>::default();
    let table = &judge.table;
    let kind = |text| table.history.find(text).unwrap_or(Name::NONE);
    let (cancelled, timeout) = (kind("cancelled"), kind("timeout"));
    let mut operations = 0;
    for call in &table.calls {
        let inv = &table.events[call.inv];
        let ret = call.ret.map(|ret| &table.events[ret]);
        let mut add = |name| *counts.entry(name).or_default() += 1;
        if let Some(hold) = call.hold.map(|hold| &table.holds[hold])
            && inv.t > hold.told.min(if hold.sure { hold.vu } else { u64::MAX })
        {
            match inv.f {
                Verb::Release => add("stale releases"),
                Verb::Renew => add("stale renews"),
                _ => {}
            }
        }
        if inv.f == Verb::Drop {
            add("drops");
        }
        let Some(ret) = ret else { continue };
        operations += 1;
        match (ret.ph, ret.f) {
            (Phase::Unknown, _) => add("unknown outcomes"),
            (Phase::Fail, Verb::Try) => add("busy tries"),
            _ => {}
        }
        if ret.f == Verb::Acquire && !yes(ret.ph) {
            match ret.err {
                Name::NONE => {}
                err if err == cancelled => add("cancelled acquires"),
                err if err == timeout => add("timed-out acquires"),
                _ => {}
            }
        }
        if ret.err != Name::NONE {
            *errors.entry(ret.err).or_default() += 1;
        }
    }
    for event in &table.events {
        match event.f {
            Verb::Told => *counts.entry("loss reports").or_default() += 1,
            Verb::Reconnect => *counts.entry("reconnects").or_default() += 1,
            _ => {}
        }
    }
    judge.verdict.operations = operations;
    for (name, count) in counts {
        judge.verdict.count(name, count);
    }
    for (err, count) in errors {
        judge.verdict.count(&format!("error {}", judge.table.history.text(err)), count);
    }
}

/// Counts the fencing tokens of a key that don't follow the previous one without a gap.
fn gaps(judge: &mut Judge<'_>) {
    let mut by_key = FxHashMap::<_, Vec<u64>>::default();
    for hold in &judge.table.holds {
        by_key.entry(hold.k).or_default().extend(hold.fence);
    }
    let mut gaps = 0;
    for fences in by_key.values_mut() {
        fences.sort_unstable();
        gaps += fences.windows(2).filter(|pair| pair[1] > pair[0] + 1).count();
    }
    judge.verdict.count("fence gaps", gaps as u64);
}
