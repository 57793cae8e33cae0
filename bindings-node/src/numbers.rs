//! Values by number. JavaScript objects have the numbers.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoValues;
use std::sync::atomic::{AtomicI64, Ordering};

use dlock::{Error, Result};

/// Values by number. A number is given out once in the process. So a number of another copy, of another thread or of an
/// earlier value finds nothing.
pub(crate) struct Numbers<T>(BTreeMap<i64, T>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Numbers<T> {
    pub(crate) fn insert(&mut self, value: T) -> i64 {
        // JavaScript counts exactly up to 2^53, which is never reached.
        static NEXT: AtomicI64 = AtomicI64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.0.insert(number, value);
        number
    }

    /// Returns the value of this number.
    ///
    /// # Errors
    /// `Invalid` for a number that isn't one of these.
    pub(crate) fn get(&self, number: i64) -> Result<&T> {
        self.0.get(&number).ok_or_else(|| {
            Error::invalid(format!("{number} is no number of this copy of dlock-rs: use what it was given out for"))
        })
    }

    pub(crate) fn remove(&mut self, number: i64) -> Option<T> {
        self.0.remove(&number)
    }
}

impl<T> IntoIterator for Numbers<T> {
    type Item = T;
    type IntoIter = IntoValues<i64, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}
