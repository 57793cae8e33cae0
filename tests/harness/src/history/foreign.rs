//! Whether anybody's call worked on a lock that was somebody else's.

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

/// All grants of a key by the time they were told, with the latest time any so far was asked for.
struct Grants {
    by_key: FxHashMap<Name, Vec<(u64, u64, usize)>>,
    /// A definite hold's place among those of its key.
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

    /// Somebody who got the lock after this hold's grant and before that time. Whoever is granted a lock owns it for a
    /// moment, and whoever owned it before can't own it again.
    fn between(&self, table: &Table<'_>, mine: usize, until: u64) -> Option<usize> {
        let hold = &table.holds[mine];
        let grants = self.by_key.get(&hold.k)?;
        let before = grants.partition_point(|grant| grant.0 < until);
        if let Some(&(_, asked, other)) = before.checked_sub(1).map(|last| &grants[last])
            && asked > hold.start
        {
            return Some(other);
        }
        // One that was asked for before that grant, but was surely held after it.
        let next = self.place.get(&mine)? + 1;
        let other = *table.definite.get(&hold.k)?.get(next)?;
        (table.holds[other].start < until).then_some(other)
    }
}

/// What the server says against what the clients say.
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
    // Who wasn't the owner at any time after the grant can't renew or release.
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
