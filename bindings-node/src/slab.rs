//! Values by number: what a JavaScript object stands for.

use dlock::{Error, Kind, Result};

/// Numbers are used again, so whoever takes a value out must be the last to name it.
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = Some(value);
            return number;
        }
        let number = u32::try_from(self.slots.len()).expect("fewer values than there is memory for");
        self.slots.push(Some(value));
        number
    }

    /// # Errors
    /// `Internal` for a number that was taken out.
    pub(crate) fn get(&self, number: u32) -> Result<&T> {
        let value = self.slots.get(number as usize).and_then(Option::as_ref);
        value.ok_or_else(|| Error::new(Kind::Internal, "a number of nothing; please report it"))
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.slots.get_mut(number as usize)?.take();
        if value.is_some() {
            self.free.push(number);
        }
        value
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.slots.into_iter().flatten()
    }
}
