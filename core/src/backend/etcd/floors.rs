//! Floors: for a lock whose range contains keys of longer names, the revision up to which they were read. So each of
//! these keys is read once.
//!
//! A floor ends with its connection: behind the next one there may be a cluster that was restored from a backup, has
//! gone back, and has passed the old revision again.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::runtime::lock;

/// The number of names with a floor. The keys of a name without one are read again.
const NAMES: usize = 1024;

/// The floors: for each name that has longer ones beside it, no contender has a key that was made before this revision,
/// and none will have.
#[derive(Debug, Default)]
pub(super) struct Floors(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The number of connections that had been made when the floors were found.
    made: u64,
    floors: HashMap<String, i64>,
}

impl Floors {
    /// Returns the floor of a name, for this number of connections. 0: not known.
    pub(super) fn of(&self, made: u64, name: &str) -> i64 {
        let known = lock(&self.0);
        if known.made == made { known.floors.get(name).copied().unwrap_or(0) } else { 0 }
    }

    /// Raises the floor of a name.
    pub(super) fn raise(&self, made: u64, name: &str, rev: i64) {
        if mutant!("etcd-longer-names-looked-through") {
            return;
        }
        let mut known = lock(&self.0);
        if known.made > made {
            return;
        }
        if known.made < made {
            *known = Known { made, ..Known::default() };
        }
        let floors = &mut known.floors;
        if let Some(floor) = floors.get_mut(name) {
            *floor = rev.max(*floor);
            return;
        }
        if floors.len() >= NAMES {
            floors.clear();
        }
        floors.insert(name.to_owned(), rev);
    }

    /// Forgets the floor of a name.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.0).floors.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::{Floors, NAMES};

    #[test]
    fn a_floor_never_falls_and_they_are_bounded() {
        let floors = Floors::default();
        floors.raise(1, "a", 7);
        floors.raise(1, "a", 5);
        assert_eq!((floors.of(1, "a"), floors.of(1, "b")), (7, 0));
        for n in 0..3 * NAMES {
            floors.raise(1, &format!("k{n}"), 1);
            assert!(floors.0.lock().unwrap().floors.len() <= NAMES);
        }
        floors.forget("k0");
        assert_eq!(floors.of(1, "k0"), 0);
    }

    #[test]
    fn what_an_earlier_connection_told_is_not_known_any_more() {
        let floors = Floors::default();
        floors.raise(1, "a", 7);
        assert_eq!(floors.of(2, "a"), 0);
        floors.raise(2, "b", 5);
        floors.raise(1, "a", 7);
        assert_eq!((floors.of(2, "a"), floors.of(1, "a"), floors.of(2, "b")), (0, 0, 5));
    }
}
