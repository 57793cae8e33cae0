//! Where the keys of longer names are among those of a lock's contenders: up to which revision they were looked through, so
//! that however many there are, each is looked at once.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::runtime::locked;

/// For how many names at a time. What is forgotten is looked through again.
const NAMES: usize = 1024;

/// For each name that has longer ones beside it: no contender has a key that was made before this revision, and none
/// will have.
#[derive(Debug, Default)]
pub(super) struct Floors(Mutex<HashMap<String, i64>>);

impl Floors {
    /// 0: nothing is known.
    pub(super) fn of(&self, name: &str) -> i64 {
        locked(&self.0).get(name).copied().unwrap_or(0)
    }

    pub(super) fn raise(&self, name: &str, rev: i64) {
        if mutant!("etcd-longer-names-looked-through") {
            return;
        }
        let mut floors = locked(&self.0);
        if let Some(floor) = floors.get_mut(name) {
            *floor = rev.max(*floor);
            return;
        }
        if floors.len() >= NAMES {
            floors.clear();
        }
        floors.insert(name.to_owned(), rev);
    }

    pub(super) fn forget(&self, name: &str) {
        locked(&self.0).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::{Floors, NAMES};

    #[test]
    fn a_floor_never_falls_and_they_are_bounded() {
        let floors = Floors::default();
        floors.raise("a", 7);
        floors.raise("a", 5);
        assert_eq!((floors.of("a"), floors.of("b")), (7, 0));
        for n in 0..3 * NAMES {
            floors.raise(&format!("k{n}"), 1);
            assert!(floors.0.lock().unwrap().len() <= NAMES);
        }
        floors.forget("k0");
        assert_eq!(floors.of("k0"), 0);
    }
}
