//! The judgement of a history: one sweep over its events by time, for histories of any length.
//!
//! An acquire with an unknown outcome may have been granted or not. So it proves nothing and excuses nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::event::{History, Name, Phase, Verb};
use super::hold::{Hold, Table};
use super::{count, foreign, honest};

/// The kinds of violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// I1: two definite holds of a key at the same time.
    Overlap,
    /// I2: a later hold without a greater fencing token, or one token twice.
    Fence,
    /// I3: a lease that was reported as held after its end.
    Expired,
    /// I3: a loss that was reported too late, or never.
    LateLoss,
    /// I4: a stale renewal or release that succeeded, or an owner at the server that isn't the holder.
    Foreign,
    /// I5: a lock that nobody had for too long, although somebody waited.
    Stalled,
    /// I6: a key that was left at the server.
    Orphan,
    /// I7: a call that didn't return in time.
    Overdue,
}

/// A violation, with the lines that prove it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The kind of the violation.
    pub class: Class,
    /// The time on [`now`](super::now).
    pub t: u64,
    /// The key.
    pub key: String,
    /// A description in words.
    pub text: String,
    /// The lines of the history that prove it.
    pub lines: Vec<String>,
}

/// The promises of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The maximum time from the end of a lease to the report of its loss.
    pub slack: Duration,
    /// The time by which a loss may be reported early without counting as a false one.
    pub early: Duration,
    /// The maximum time for which nobody may have a lock that somebody waits for, outside of faults. `None`: not
    /// checked.
    pub recovery: Option<Duration>,
    /// The time for which a fault counts as going on after its end, for `recovery`.
    pub grace: Duration,
    /// The maximum time from the deadline of a call to its return.
    pub overdue: Duration,
    /// The faults by which the server loses locks. Overlaps are excused during these faults and for `excuse` after
    /// them.
    pub losing: Vec<String>,
    /// The time after a fault of `losing` in which overlaps are excused: the ttl.
    pub excuse: Duration,
    /// The keys that the server still had at the end.
    pub leftovers: Vec<String>,
    /// The counters that must not be 0.
    pub required: Vec<String>,
    /// The counters that must be 0.
    pub forbidden: Vec<String>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            slack: Duration::from_millis(50),
            early: Duration::from_millis(60),
            recovery: None,
            grace: Duration::ZERO,
            overdue: Duration::from_millis(1100),
            losing: Vec::new(),
            excuse: Duration::ZERO,
            leftovers: Vec::new(),
            required: Vec::new(),
            forbidden: Vec::new(),
        }
    }
}

/// The result of a judgement.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The violations, in the order of time.
    pub violations: Vec<Violation>,
    /// The counters of the run, by name.
    pub counts: BTreeMap<String, u64>,
    /// The required counters that are 0.
    pub missing: Vec<String>,
    /// The forbidden counters that aren't 0.
    pub present: Vec<String>,
    /// The number of calls that returned.
    pub operations: u64,
    /// The number of acquisitions.
    pub holds: u64,
    /// The number of faults.
    pub faults: u64,
    /// The times from the ends of leases to the reports of their losses, in nanoseconds, sorted. An early report counts
    /// as 0.
    pub lateness: Vec<u64>,
}

impl Verdict {
    /// Returns true if there is no violation, everything required was seen, and nothing forbidden.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.missing.is_empty() && self.present.is_empty()
    }

    /// Returns the number of violations of a class.
    pub fn of(&self, class: Class) -> usize {
        self.violations.iter().filter(|one| one.class == class).count()
    }

    pub(crate) fn count(&mut self, name: &str, by: u64) {
        *self.counts.entry(name.to_owned()).or_default() += by;
    }
}

/// A judgement in progress.
pub(crate) struct Judge<'a> {
    pub(crate) table: Table<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) verdict: Verdict,
}

/// Returns the duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Judges a history by a plan.
pub fn check(history: &History, plan: &Plan) -> Verdict {
    let mut judge = Judge { table: Table::new(history), plan, verdict: Verdict::default() };
    judge.overlaps();
    judge.fences();
    honest::check(&mut judge);
    foreign::check(&mut judge);
    judge.recovery();
    judge.orphans();
    judge.overdue();
    count::check(&mut judge);
    judge.verdict.violations.sort_by_key(|violation| violation.t);
    judge.verdict
}

impl Judge<'_> {
    pub(crate) fn blame(&mut self, class: Class, t: u64, key: Name, text: String, events: &[Option<usize>]) {
        let lines = events.iter().flatten().map(|&event| self.table.show(event)).collect();
        let key = self.table.history.text(key).to_owned();
        self.verdict.violations.push(Violation { class, t, key, text, lines });
    }

    /// Adds a violation like `blame`, unless the server is known to have lost its locks at about that time.
    pub(crate) fn blame_or_excuse(&mut self, class: Class, t: u64, key: Name, text: String, events: &[Option<usize>]) {
        let history = self.table.history;
        let excused = history.faults.iter().any(|fault| {
            let losing = self.plan.losing.iter().any(|name| name == history.text(fault.what));
            losing && (fault.begin..=fault.end.saturating_add(nanos(self.plan.excuse))).contains(&t)
        });
        if excused { self.verdict.count("excused", 1) } else { self.blame(class, t, key, text, events) }
    }

    fn overlaps(&mut self) {
        let mut found = Vec::new();
        for holds in self.table.definite.values() {
            let mut longest: Option<&Hold> = None;
            for &at in holds {
                let hold = &self.table.holds[at];
                if let Some(other) = longest.filter(|other| hold.start < other.end) {
                    found.push((*other, *hold));
                }
                if longest.is_none_or(|other| hold.end > other.end) {
                    longest = Some(hold);
                }
            }
        }
        for (first, second) in found {
            let both = first.end.min(second.end) - second.start;
            let text = format!("two holders for {:?} or more", Duration::from_nanos(both));
            let events = [Some(first.from), first.to, Some(second.from), second.to];
            self.blame_or_excuse(Class::Overlap, second.start, second.k, text, &events);
        }
    }

    /// Checks the fencing tokens. A grant that was reported before another was requested came before it. So did a hold
    /// that ended before another began, if both are definite. No fencing token may come twice.
    fn fences(&mut self) {
        let mut by_key = FxHashMap::<_, Vec<Hold>>::default();
        for hold in self.table.holds.iter().filter(|hold| hold.fence.is_some()) {
            by_key.entry(hold.k).or_default().push(*hold);
        }
        for holds in by_key.values_mut() {
            holds.sort_by_key(|hold| hold.fence);
            let twins = holds.windows(2).filter(|pair| pair[0].fence == pair[1].fence);
            for (first, second) in twins.map(|pair| (pair[0], pair[1])).collect::<Vec<_>>() {
                let text = format!("fencing token {} twice", first.fence.unwrap_or_default());
                self.blame(Class::Fence, second.start, second.k, text, &[Some(first.from), Some(second.from)]);
            }
            self.ascending(holds.clone(), |hold| hold.start, |hold| hold.asked);
            holds.retain(Hold::is_definite);
            self.ascending(holds.clone(), |hold| hold.end, |hold| hold.start);
        }
    }

    fn ascending(&mut self, mut earlier: Vec<Hold>, over: fn(&Hold) -> u64, begun: fn(&Hold) -> u64) {
        let mut later = earlier.clone();
        earlier.sort_by_key(over);
        later.sort_by_key(begun);
        let (mut earlier, mut highest) = (earlier.into_iter().peekable(), None::<Hold>);
        for hold in later {
            while let Some(one) = earlier.next_if(|one| over(one) < begun(&hold)) {
                if highest.is_none_or(|high| one.fence > high.fence) {
                    highest = Some(one);
                }
            }
            if let Some(high) = highest.filter(|high| hold.fence < high.fence) {
                let text = format!("fencing token {:?} after {:?}", hold.fence, high.fence);
                self.blame(Class::Fence, hold.start, hold.k, text, &[Some(high.from), Some(hold.from)]);
            }
        }
    }

    /// Checks, for each key, the stretches of time in which somebody waits, nobody holds and no fault goes on.
    fn recovery(&mut self) {
        let limit = self.plan.recovery.map_or(u64::MAX, nanos);
        let end = self.table.events.last().map_or(0, |event| event.t);
        let mut by_key = FxHashMap::<_, Vec<(u64, usize, i64, Option<usize>)>>::default();
        for hold in self.table.holds.iter().filter(|hold| hold.is_definite()) {
            by_key.entry(hold.k).or_default().extend([(hold.start, 0, 1, None), (hold.end, 0, -1, None)]);
        }
        for call in &self.table.calls {
            let inv = &self.table.events[call.inv];
            if inv.f == Verb::Acquire {
                let death = self.table.life(inv.p).death.unwrap_or(end);
                let until = call.ret.map_or(death, |ret| self.table.events[ret].t);
                by_key.entry(inv.k).or_default().extend([(inv.t, 1, 1, Some(call.inv)), (until, 1, -1, None)]);
            }
        }
        let grace = nanos(self.plan.grace);
        let faults = self.table.history.faults.iter();
        let faults: Vec<_> = faults
            .flat_map(|fault| [(fault.begin, 2, 1, None), (fault.end.saturating_add(grace), 2, -1, None)])
            .collect();
        let (mut contended, mut stalls, mut longest) = (0, Vec::new(), 0);
        for (key, mut changes) in by_key {
            changes.extend(&faults);
            changes.sort_by_key(|change| (change.0, change.2));
            let (mut now, mut since, mut waiter) = ([0i64; 3], None::<u64>, None);
            for (t, what, by, event) in changes {
                if what == 1 && by == 1 && (now[0] > 0 || now[1] > 0) {
                    contended += 1;
                }
                now[what] += by;
                let awaited = now[0] == 0 && now[1] > 0 && now[2] == 0;
                if awaited {
                    since.get_or_insert(t);
                } else if let Some(begun) = since.take() {
                    longest = longest.max(t - begun);
                    if t - begun > limit {
                        stalls.push((key, begun, t, waiter));
                    }
                }
                waiter = event.or(waiter);
            }
        }
        self.verdict.count("contended acquires", contended);
        self.verdict.count("longest time free while awaited (ms)", longest / 1_000_000);
        for (key, begun, until, waiter) in stalls {
            let text = format!("nobody had it for {:?} while it was waited for", Duration::from_nanos(until - begun));
            self.blame(Class::Stalled, begun, key, text, &[waiter]);
        }
    }

    fn orphans(&mut self) {
        let end = self.table.events.last().map_or(0, |event| event.t);
        for key in &self.plan.leftovers {
            let (key, text) = (key.clone(), "the server still has it after the end".to_owned());
            self.verdict.violations.push(Violation { class: Class::Orphan, t: end, key, text, lines: Vec::new() });
        }
    }

    fn overdue(&mut self) {
        let (end, limit) = (self.table.events.last().map_or(0, |event| event.t), nanos(self.plan.overdue));
        let mut late = Vec::new();
        for call in &self.table.calls {
            let inv = &self.table.events[call.inv];
            let Some(by) = inv.by else { continue };
            let life = self.table.life(inv.p);
            let until = call.ret.map_or(life.death.unwrap_or(end), |ret| self.table.events[ret].t);
            let over = until.saturating_sub(by);
            if over > limit && over.saturating_sub(life.stopped(inv.t, until)) > limit {
                late.push((*inv, *call, over));
            }
        }
        for (inv, call, over) in late {
            let back = if call.ret.is_some() { "was back" } else { "wasn't back" };
            let text = format!("{:?} {back} {:?} after its deadline", inv.f, Duration::from_nanos(over));
            self.blame(Class::Overdue, inv.t, inv.k, text, &[Some(call.inv), call.ret]);
        }
    }
}

/// Returns true if the answer was a success.
pub(crate) fn yes(phase: Phase) -> bool {
    phase == Phase::Ok
}
