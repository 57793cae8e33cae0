//! The rule of admission: whether a claim may hold a lock beside the claims that are before it.
//!
//! One pure function, for all modes of a lock. All claims of a key stand in one queue, in the order in which they came.
//! A claim is admitted when the rule lets it hold beside every holder *and* beside every claim that waits before it. So
//! no claim overtakes another that it can't hold beside, and writers don't starve.

use std::collections::BTreeSet;
use std::ops::Range;

/// The mode in which a claim holds a lock.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One holder.
    #[default]
    Exclusive,
    /// Any number of holders, all of them shared.
    Shared,
    /// Holders that have at most `limit` permits together.
    Permits {
        /// The number of permits that this claim takes, all of them or none.
        count: u32,
        /// The number of permits that there are, as this claim sees it.
        limit: u32,
    },
}

impl Mode {
    /// Returns the number of permits that there are, as the claim sees it: 0 without permits.
    pub(crate) fn limit(self) -> u32 {
        match self {
            Self::Permits { limit, .. } => limit,
            _ => 0,
        }
    }
}

/// The answer to one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The claim may hold the lock.
    Now,
    /// The claim has to wait: it can't be admitted before one of these, counted from the first, has gone.
    Behind(Range<usize>),
}

/// A sum of claims: as much of them as the rule asks about, so that a claim more costs a fixed time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    exclusive: u32,
    shared: u32,
    /// The claims for permits.
    permits: u32,
    /// Their permits.
    taken: u64,
}

impl Tally {
    /// Adds a claim.
    pub(crate) fn add(&mut self, mode: Mode) {
        match mode {
            Mode::Exclusive => self.exclusive += 1,
            Mode::Shared => self.shared += 1,
            Mode::Permits { count, .. } => {
                self.permits += 1;
                self.taken += u64::from(count);
            }
        }
    }

    /// Removes a claim that was added before.
    pub(crate) fn remove(&mut self, mode: Mode) {
        match mode {
            Mode::Exclusive => self.exclusive -= 1,
            Mode::Shared => self.shared -= 1,
            Mode::Permits { count, .. } => {
                self.permits -= 1;
                self.taken -= u64::from(count);
            }
        }
    }

    /// Returns true if a claim of this mode may hold the lock beside all of these.
    pub(crate) fn admits(&self, mine: Mode) -> bool {
        match mine {
            Mode::Exclusive => self.exclusive | self.shared | self.permits == 0,
            Mode::Shared if self.shared > 0 && mutant!("modes-reader-overtakes") => true,
            Mode::Shared => self.exclusive | self.permits == 0,
            Mode::Permits { count, limit } => {
                let one_more = u64::from(mutant!("modes-limit-off-by-one"));
                self.exclusive | self.shared == 0 && self.taken + u64::from(count) <= u64::from(limit) + one_more
            }
        }
    }

    /// Returns true if a claim behind these may be admitted, whatever its mode, if its limit is at most this.
    pub(crate) fn admits_some(&self, limit: u32) -> bool {
        match (self.exclusive, self.shared, self.permits) {
            (0, _, 0) => true,
            (0, 0, _) => self.taken < u64::from(limit),
            _ => false,
        }
    }
}

/// Returns whether a claim of this mode may hold the lock beside the claims that are before it, in their order.
pub fn admit(mine: Mode, ahead: impl IntoIterator<Item = Mode>) -> Admission {
    let (mut length, mut all, mut barrier) = (0, Tally::default(), None);
    for other in ahead {
        if !matches!((mine, other), (Mode::Shared, Mode::Shared) | (Mode::Permits { .. }, Mode::Permits { .. })) {
            barrier = Some(length);
        }
        all.add(other);
        length += 1;
    }
    match barrier {
        _ if all.admits(mine) => Admission::Now,
        // A claim before it that can't hold together with it: the last of them goes last.
        Some(at) => Admission::Behind(at..at + 1),
        None => Admission::Behind(0..length),
    }
}

/// The slots of one lock's permits: which are free, the lowest first.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Those below `next` that were given back.
    free: BTreeSet<u32>,
    /// The lowest that was never given.
    next: u32,
}

impl Slots {
    /// Takes the lowest free slots. The claim was admitted, so each of them is below its limit.
    pub(crate) fn take(&mut self, count: u32) -> Vec<u32> {
        if mutant!("modes-slot-given-twice") {
            return (0..count).collect();
        }
        let taken = (0..count).map(|_| {
            self.free.pop_first().unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            })
        });
        taken.collect()
    }

    /// Gives slots back.
    pub(crate) fn give(&mut self, slots: &[u32]) {
        self.free.extend(slots);
        if self.free.len() as u64 == u64::from(self.next) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: Mode = Mode::Exclusive;
    const S: Mode = Mode::Shared;

    const fn p(count: u32, limit: u32) -> Mode {
        Mode::Permits { count, limit }
    }

    #[test]
    fn says_who_may_hold_together() {
        let cases: &[(Mode, &[Mode], Admission)] = &[
            (X, &[], Admission::Now),
            (X, &[X], Admission::Behind(0..1)),
            (X, &[S, S], Admission::Behind(1..2)),
            (S, &[S, S], Admission::Now),
            // A reader doesn't overtake a writer that waits.
            (S, &[S, X], Admission::Behind(1..2)),
            (S, &[S, X, S], Admission::Behind(1..2)),
            (S, &[p(1, 5)], Admission::Behind(0..1)),
            (p(1, 5), &[S], Admission::Behind(0..1)),
            (p(2, 5), &[p(3, 5)], Admission::Now),
            (p(3, 5), &[p(3, 5)], Admission::Behind(0..1)),
            // A claim for one permit doesn't overtake one for three that waits.
            (p(1, 5), &[p(3, 5), p(3, 5)], Admission::Behind(0..2)),
            // The limit is the claim's own.
            (p(1, 2), &[p(3, 5)], Admission::Behind(0..1)),
            (p(1, 9), &[p(3, 5), p(3, 5)], Admission::Now),
            (p(u32::MAX, u32::MAX), &[p(u32::MAX, u32::MAX)], Admission::Behind(0..1)),
        ];
        for (mine, ahead, expected) in cases {
            assert_eq!(&admit(*mine, ahead.iter().copied()), expected, "{mine:?} behind {ahead:?}");
        }
    }

    #[test]
    fn says_when_nobody_behind_is_admitted() {
        let after = |modes: &[Mode]| {
            let mut sum = Tally::default();
            modes.iter().for_each(|mode| sum.add(*mode));
            sum
        };
        for (ahead, limit, expected) in [
            (&[][..], 0, true),
            (&[S, S], 0, true),
            (&[X], 9, false),
            (&[S, p(1, 5)], 9, false),
            (&[p(1, 1)], 1, false),
            (&[p(1, 1)], 2, true),
            (&[p(3, 5), p(3, 5)], 5, false),
        ] {
            assert_eq!(after(ahead).admits_some(limit), expected, "{ahead:?}, at most {limit}");
        }
    }

    #[test]
    fn gives_the_lowest_free_slots() {
        let mut slots = Slots::default();
        assert_eq!((slots.take(2), slots.take(1), slots.take(3)), (vec![0, 1], vec![2], vec![3, 4, 5]));
        slots.give(&[1]);
        slots.give(&[3, 4, 5]);
        assert_eq!((slots.take(2), slots.take(3)), (vec![1, 3], vec![4, 5, 6]));
        slots.give(&[0, 1, 2, 3]);
        slots.give(&[4, 5, 6]);
        assert_eq!(slots.take(1), [0]);
    }
}
