//! The ttl classes of a client: a service that keeps locks by sessions has one session, or a few, for each ttl.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::runtime::lock;

/// The number of ttl classes of a client. A further ttl joins the next longer class.
const CLASSES: usize = 8;

/// The classes of a client, by their whole seconds.
pub(crate) struct TtlClasses<C>(Mutex<BTreeMap<u64, Arc<C>>>);

/// Returns a ttl in whole seconds, rounded up.
pub(crate) fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

impl<C: Default> TtlClasses<C> {
    /// Returns the class for a ttl of so many seconds, and the class's seconds. `None`: there are too many classes, and
    /// none is longer.
    pub(crate) fn get(&self, wanted: u64) -> Option<(u64, Arc<C>)> {
        let mut classes = lock(&self.0);
        if classes.len() < CLASSES || classes.contains_key(&wanted) {
            return Some((wanted, classes.entry(wanted).or_default().clone()));
        }
        classes.range(wanted..).next().map(|(seconds, class)| (*seconds, class.clone()))
    }

    /// Returns all classes.
    pub(crate) fn all(&self) -> Vec<Arc<C>> {
        lock(&self.0).values().cloned().collect()
    }
}

impl<C> Default for TtlClasses<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> fmt::Debug for TtlClasses<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_ttl_joins_the_next_longer_class() {
        let classes = TtlClasses::<()>::default();
        assert!((1..=8).all(|n| classes.get(n * 10).is_some_and(|(seconds, _)| seconds == n * 10)));
        let joined = |wanted| classes.get(wanted).map(|(seconds, _)| seconds);
        assert_eq!((joined(10), joined(11), joined(80), joined(81)), (Some(10), Some(20), Some(80), None));
        assert_eq!(classes.all().len(), 8);
        assert_eq!(seconds(Duration::from_millis(2001)), 3);
    }
}
