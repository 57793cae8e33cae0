//! Lock files that are kept open for their next use, and locks that were released while other processes wait for them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustc_hash::FxBuildHasher;

use super::lock_file::LockFile;
use crate::clock::Instant;
use crate::runtime::lock;

/// The number of lock files that are kept open for their next use.
const IDLE: usize = 64;
/// The time for which other processes go first after a release, before this one asks for the lock again.
const YIELD: Duration = Duration::from_micros(500);

/// The open lock files of a client.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    idle: HashMap<Arc<str>, LockFile, FxBuildHasher>,
    recently_released: RecentlyReleased,
}

impl OpenFiles {
    /// Takes the open file of a lock.
    pub(super) fn take(&self, name: &str) -> Option<LockFile> {
        lock(&self.0).idle.remove(name)
    }

    /// Keeps a file open.
    pub(super) fn keep(&self, name: &Arc<str>, file: LockFile) {
        let mut state = lock(&self.0);
        if state.idle.len() < IDLE {
            state.idle.insert(name.clone(), file);
        }
    }

    /// Notes the release of a lock that other processes wait for.
    pub(super) fn released(&self, name: &Arc<str>, now: Instant) {
        lock(&self.0).recently_released.insert(name, now);
    }

    /// Returns the time for which other processes go first, if this process has just released the lock.
    pub(super) fn yield_to_others(&self, name: &str) -> Option<Duration> {
        lock(&self.0).recently_released.take(name)
    }
}

/// Locks that were released so recently that other processes go first.
#[derive(Debug, Default)]
struct RecentlyReleased {
    at: HashMap<Arc<str>, Instant, FxBuildHasher>,
    /// The releases, oldest first.
    order: VecDeque<(Arc<str>, Instant)>,
}

impl RecentlyReleased {
    fn insert(&mut self, name: &Arc<str>, now: Instant) {
        while let Some((name, at)) = self.order.front().filter(|(_, at)| now - *at > YIELD) {
            if self.at.get(name) == Some(at) {
                self.at.remove(name);
            }
            self.order.pop_front();
        }
        self.order.push_back((name.clone(), now));
        self.at.insert(name.clone(), now);
    }

    /// Returns the time for which other processes still go first.
    fn take(&mut self, name: &str) -> Option<Duration> {
        if self.at.is_empty() {
            return None;
        }
        let left = self.at.remove(name)?.plus(YIELD).left();
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{RecentlyReleased, YIELD};
    use crate::clock::Instant;

    #[test]
    fn names_that_were_given_back_are_forgotten_after_a_moment() {
        let (mut recently_released, mut now) = (RecentlyReleased::default(), Instant::now());
        for n in 0..1000 {
            let name: Arc<str> = format!("k{n}").into();
            recently_released.insert(&name, now);
            recently_released.insert(&name, now);
            now = now.plus(YIELD / 4);
            assert!(recently_released.at.len() <= 6 && recently_released.order.len() <= 12, "{recently_released:?}");
        }
        assert_eq!(recently_released.take("k0"), None);
        let name: Arc<str> = "k".into();
        recently_released.insert(&name, Instant::now().plus(Duration::from_secs(1)));
        assert!(recently_released.take("k").is_some() && recently_released.take("k").is_none());
    }
}
