//! The check for calls that worked on a lock of another owner.

use rustc_hash::FxHashMap;

use super::check::{Class, Judge, yes};
use super::event::{Name, Sample, Verb};
use super::hold::Table;

pub(crate) fn check(judge: &mut Judge<'_>) {
    let grants = Grants::new(&judge.table);
    let mut wrong = Vec::new();
    for call in &judge.table.calls {
        let (inv, Some(ret), Some(mine)) = (&judge.table.events[call.inv], call.ret, call.hold) else { continue };
        if matches!(inv.f, Verb::Release | Verb::Renew)
            && yes(judge.table.events[ret].ph)
            && let Some(other) = grants.between(&judge.table, mine, inv.t)
        {
            let [mine, other] = [mine, other].map(|hold| Some(judge.table.holds[hold].from));
            wrong.push((*inv, [mine, other, Some(call.inv), Some(ret)]));
        }
    }
    for (inv, events) in wrong {
        let text = format!("a {:?} was answered with yes after somebody else had the lock", inv.f);
        judge.blame_or_excuse(Class::Foreign, inv.t, inv.k, text, &events);
    }
    samples(judge);
}

/// The grants of each key by the time of their report. Each has the latest request time of all grants so far.
struct Grants {
    by_key: FxHashMap<Name, Vec<(u64, u64, usize)>>,
    /// The index of a definite hold among those of its key.
    place: FxHashMap<usize, usize>,
}

impl Grants {
    fn new(table: &Table<'_>) -> Self {
        let mut by_key = FxHashMap::<_, Vec<_>>::default();
        for (at, hold) in table.holds.iter().enumerate() {
            by_key.entry(hold.k).or_default().push((hold.start, hold.asked, at));
        }
        for grants in by_key.values_mut() {
            grants.sort_unstable();
            for next in 1..grants.len() {
                if grants[next - 1].1 > grants[next].1 {
                    (grants[next].1, grants[next].2) = (grants[next - 1].1, grants[next - 1].2);
                }
            }
        }
        let place = table.definite.values().flat_map(|holds| holds.iter().enumerate().map(|(place, &at)| (at, place)));
        Self { by_key, place: place.collect() }
    }

    /// Returns a hold that was granted after this hold's grant and before `until`. A holder owns its lock for at least
    /// a moment after the grant, and an earlier owner can't own the lock again.
    fn between(&self, table: &Table<'_>, mine: usize, until: u64) -> Option<usize> {
        let hold = &table.holds[mine];
        let grants = self.by_key.get(&hold.k)?;
        let before = grants.partition_point(|grant| grant.0 < until);
        if let Some(&(_, asked, other)) = before.checked_sub(1).map(|last| &grants[last])
            && asked > hold.start
        {
            return Some(other);
        }
        // The other possibility is a hold that was requested before this grant, but was certainly held after it.
        let next = self.place.get(&mine)? + 1;
        let other = *table.definite.get(&hold.k)?.get(next)?;
        (table.holds[other].start < until).then_some(other)
    }
}

/// Checks the server's answers against the clients' reports.
fn samples(judge: &mut Judge<'_>) {
    let mut by_key = FxHashMap::<_, Vec<Sample>>::default();
    for sample in &judge.table.history.samples {
        by_key.entry(sample.k).or_default().push(*sample);
    }
    let mut wrong = Vec::new();
    for samples in by_key.values_mut() {
        samples.sort_by_key(|sample| sample.from);
    }
    // A definite hold owns the key in every sample within it.
    for hold in judge.table.holds.iter().filter(|hold| hold.is_definite() && hold.tok != Name::NONE) {
        let Some(samples) = by_key.get(&hold.k) else { continue };
        let first = samples.partition_point(|sample| sample.from < hold.start);
        for sample in samples[first..].iter().take_while(|sample| sample.from < hold.end) {
            if sample.to < hold.end && sample.tok != hold.tok {
                let owner = judge.table.history.text(sample.tok);
                let text = format!("the server said that the owner was {owner:?} while it was held");
                wrong.push((sample.from, hold.k, text, [Some(hold.from), hold.to, None]));
                break;
            }
        }
    }
    // A renewal or release can't succeed if the caller wasn't the owner at some time after its grant.
    for call in &judge.table.calls {
        let (inv, Some(ret), Some(mine)) = (&judge.table.events[call.inv], call.ret, call.hold) else { continue };
        let hold = &judge.table.holds[mine];
        let asked = matches!(inv.f, Verb::Release | Verb::Renew) && yes(judge.table.events[ret].ph);
        let Some(samples) = by_key.get(&hold.k).filter(|_| asked && hold.tok != Name::NONE) else { continue };
        let first = samples.partition_point(|sample| sample.from < hold.start);
        let within = samples[first..].iter().take_while(|sample| sample.from < inv.t);
        if let Some(sample) = within.filter(|sample| sample.to < inv.t && sample.tok != hold.tok).last() {
            let owner = judge.table.history.text(sample.tok);
            let text = format!("a {:?} was answered with yes though the server's owner was {owner:?}", inv.f);
            wrong.push((inv.t, hold.k, text, [Some(hold.from), Some(call.inv), Some(ret)]));
        }
    }
    for (t, key, text, events) in wrong {
        judge.blame_or_excuse(Class::Foreign, t, key, text, &events);
    }
}
