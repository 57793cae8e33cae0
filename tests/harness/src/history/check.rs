//! Judges a history: one sweep over what is sorted by time, whatever its length.
//!
//! An acquire of unknown outcome may have been granted or not, so it proves nothing and excuses nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::event::{History, Name, Phase, Verb};
use super::hold::{Hold, Table};
use super::{count, foreign, honest};

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// I1: two definite holds of a key at a time.
    Overlap,
    /// I2: a later hold without a greater fencing token, or one token twice.
    Fence,
    /// I3: said to count after its end.
    Expired,
    /// I3: a loss was told too late, or never.
    LateLoss,
    /// I4: a stale renewal or release was answered with yes, or the server says that the holder isn't the owner.
    Foreign,
    /// I5: nobody had the lock for too long, while somebody waited.
    Stalled,
    /// I6: something was left behind at the server.
    Orphan,
    /// I7: a call wasn't back in time.
    Overdue,
}

/// A violation, with the lines that prove it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What was broken.
    pub class: Class,
    /// When, on [`now`](super::now).
    pub t: u64,
    /// The key.
    pub key: String,
    /// In words.
    pub text: String,
    /// Lines of the history.
    pub lines: Vec<String>,
}

/// What a run promises.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How late a loss may be told.
    pub slack: Duration,
    /// How early a loss may be told without counting as a false one.
    pub early: Duration,
    /// How long nobody may have a lock that somebody waits for, outside of faults. `None`: not looked at.
    pub recovery: Option<Duration>,
    /// How long a fault counts as going on after its end, for `recovery`.
    pub grace: Duration,
    /// How late a call may come back.
    pub overdue: Duration,
    /// Faults by which the server loses locks: overlaps are excused while they last and for `excuse` after.
    pub losing: Vec<String>,
    /// See `losing`; the ttl.
    pub excuse: Duration,
    /// Keys that the server still had at the end.
    pub leftovers: Vec<String>,
    /// Counters that must not be 0.
    pub required: Vec<String>,
    /// Counters that must be 0.
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

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// In the order of time.
    pub violations: Vec<Violation>,
    /// What the run had in it, by name.
    pub counts: BTreeMap<String, u64>,
    /// Required counters that are 0.
    pub missing: Vec<String>,
    /// Forbidden counters that aren't.
    pub present: Vec<String>,
    /// Calls that came back.
    pub operations: u64,
    /// Acquisitions.
    pub holds: u64,
    /// Faults.
    pub faults: u64,
    /// How late losses were told, in nanoseconds, sorted; early ones are 0.
    pub lateness: Vec<u64>,
}

impl Verdict {
    /// Whether nothing is broken and everything required was seen.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.missing.is_empty() && self.present.is_empty()
    }

    /// How many violations of a class there are.
    pub fn of(&self, class: Class) -> usize {
        self.violations.iter().filter(|one| one.class == class).count()
    }

    pub(crate) fn count(&mut self, name: &str, by: u64) {
        *self.counts.entry(name.to_owned()).or_default() += by;
    }
}

/// One judgement under way.
pub(crate) struct Judge<'a> {
    pub(crate) table: Table<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) verdict: Verdict,
}

/// Nanoseconds.
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

    /// As `blame`, unless the server is known to have lost its locks about then.
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

    /// A grant that was told before another was asked for came before it. So did a hold that had ended before another
    /// began, if both are definite. And no fencing token comes twice.
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

    /// Per key: what begins and ends, by time; a stretch in which somebody waits, nobody holds and no fault goes on.
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

/// Whether this answer was a yes.
pub(crate) fn yes(phase: Phase) -> bool {
    phase == Phase::Ok
}
