//! The rule of admission: whether a claim may hold a lock beside the claims that are before it.
//!
//! One pure function, for all modes of a lock. All claims of a key stand in one queue, in the order in which they came. A
//! claim is admitted when the rule lets it hold beside every holder *and* beside every claim that waits before it. So no
//! claim overtakes another that it can't hold beside, and writers don't starve.

use std::ops::Range;

/// How a claim holds a lock.
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
        /// How many permits this claim takes, all of them or none.
        count: u32,
        /// How many there are, as this claim sees it.
        limit: u32,
    },
}

/// The answer to one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The claim may hold the lock.
    Now,
    /// The claim has to wait: it can't be admitted before one of these, counted from the first, has gone.
    Behind(Range<usize>),
}

/// Returns whether a claim of this mode may hold the lock beside the claims that are before it, in their order.
pub fn admit(mine: Mode, ahead: impl IntoIterator<Item = Mode>) -> Admission {
    let (mut length, mut taken, mut barrier) = (0, 0_u64, None);
    let one_more = u64::from(mutant!("modes-limit-off-by-one"));
    for other in ahead {
        match (mine, other) {
            (Mode::Shared, Mode::Shared) => {}
            (Mode::Shared, Mode::Exclusive) if length > 0 && mutant!("modes-reader-overtakes") => {}
            (Mode::Permits { .. }, Mode::Permits { count, .. }) => taken += u64::from(count),
            _ => barrier = Some(length),
        }
        length += 1;
    }
    match (barrier, mine) {
        // A claim before it that can't hold together with it: the last of them goes last.
        (Some(at), _) => Admission::Behind(at..at + 1),
        (None, Mode::Permits { count, limit }) if taken + u64::from(count) > u64::from(limit) + one_more => {
            Admission::Behind(0..length)
        }
        (None, _) => Admission::Now,
    }
}

/// The slots of a claim for `count` permits of `limit`: the lowest that no holder has.
pub(crate) fn free_slots(count: u32, limit: u32, taken: impl Fn(u32) -> bool) -> Vec<u32> {
    (0..limit)
        .filter(|slot| !taken(*slot) || mutant!("modes-slot-given-twice"))
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .collect()
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
    fn gives_the_lowest_free_slots() {
        assert_eq!(free_slots(2, 5, |slot| matches!(slot, 0 | 2)), [1, 3]);
        assert_eq!(free_slots(1, 1, |_| false), [0]);
    }
}
