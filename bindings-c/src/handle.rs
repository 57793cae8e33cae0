//! Handles: numbers that stand for values. A handle is never an address, so any number at all may be looked up.
//!
//! Nothing in this file locks: a fork at any moment in another thread leaves the tables usable in the child. A value
//! that such a thread used at that moment is never dropped in the child.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The number of bits in half a handle. The upper half counts the uses of the slot. The lower half has the slot's
/// index, the kind, and a 1 that makes the handle odd.
const HALF: u32 = usize::BITS / 2;
const KIND_BITS: u32 = 3;
const INDEX_SHIFT: u32 = KIND_BITS + 1;
const LOWER: usize = (1 << HALF) - 1;
const INDEX_LIMIT: usize = LOWER >> INDEX_SHIFT;

/// The bit in a slot's state that is set while the value may be looked up. The bits below it count the calls that use
/// the value. The bits above it count the uses of the slot.
const LIVE: u64 = 1 << 31;
const CALLS: u64 = LIVE - 1;

/// The kinds of values that handles stand for.
#[derive(Clone, Copy)]
pub enum Kind {
    Client = 1,
    Lease,
    Op,
    Error,
    List,
}

/// The values of one kind.
pub struct Table<T: 'static> {
    kind: Kind,
    slots: boxcar::Vec<Slot<T>>,
    /// The free slots. Lower half: the first free slot's index plus 1. Upper half: the number of changes of this field.
    free: AtomicU64,
}

struct Slot<T> {
    state: AtomicU64,
    value: UnsafeCell<Option<T>>,
    /// The next free slot's index plus 1.
    next: AtomicUsize,
}

// SAFETY: only the one thread that owns the slot writes or drops the value. Then the slot isn't live, and no call uses
// it.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

/// A value that a call uses. After the end of its handle the last such call drops it.
pub struct Used<T: 'static> {
    table: &'static Table<T>,
    index: usize,
    slot: &'static Slot<T>,
}

impl<T> Deref for Used<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the slot was live when this use was counted, so the value is there until this use is no longer
        // counted.
        unsafe { (*self.slot.value.get()).as_ref() }.expect("a live slot has a value")
    }
}

impl<T> Drop for Used<T> {
    fn drop(&mut self) {
        let before = self.slot.state.fetch_sub(1, Ordering::AcqRel);
        if before & (LIVE | CALLS) == 1 {
            // SAFETY: this was the last use, and no other use begins once the slot isn't live.
            let value = unsafe { (*self.slot.value.get()).take() };
            // A slot that has used up its numbers is not used again.
            if before >> 32 < LOWER as u64 {
                self.table.push(self.index, self.slot);
            }
            drop(value);
        }
    }
}

impl<T> Table<T> {
    /// Makes an empty table. The kind distinguishes its handles from those of other tables.
    pub const fn new(kind: Kind) -> Self {
        assert!((kind as usize) < 1 << KIND_BITS);
        Self { kind, slots: boxcar::Vec::new(), free: AtomicU64::new(0) }
    }

    /// Keeps a value and returns its handle.
    pub fn insert(&'static self, value: T) -> usize {
        let index = self.pop().unwrap_or_else(|| {
            let (state, next) = (AtomicU64::new(0), AtomicUsize::new(0));
            self.slots.push(Slot { state, value: UnsafeCell::new(None), next })
        });
        assert!(index < INDEX_LIMIT, "{INDEX_LIMIT} handles of one kind are in use: free those that are done with");
        let slot = &self.slots[index];
        let uses = (slot.state.load(Ordering::Acquire) >> 32) + 1;
        // SAFETY: the slot is in no list and not live, so no other thread has it.
        unsafe { *slot.value.get() = Some(value) };
        slot.state.store(uses << 32 | LIVE, Ordering::Release);
        (uses as usize) << HALF | index << INDEX_SHIFT | (self.kind as usize) << 1 | 1
    }

    /// Returns the value of this handle, if there is one.
    pub fn get(&'static self, handle: usize) -> Option<Used<T>> {
        self.using(handle, |state| state + 1)
    }

    /// Returns the value of this handle for the last time, and ends the handle.
    pub fn remove(&'static self, handle: usize) -> Option<Used<T>> {
        self.using(handle, |state| (state & !LIVE) + 1)
    }

    fn using(&'static self, handle: usize, change: impl Fn(u64) -> u64) -> Option<Used<T>> {
        let (uses, index) = ((handle >> HALF) as u64, (handle & LOWER) >> INDEX_SHIFT);
        if handle & LOWER != index << INDEX_SHIFT | (self.kind as usize) << 1 | 1 {
            return None;
        }
        let slot = self.slots.get(index)?;
        let live = |state: u64| (state >> 32 == uses && state & LIVE != 0).then(|| change(state));
        slot.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, live).ok()?;
        Some(Used { table: self, index, slot })
    }

    fn pop(&self) -> Option<usize> {
        let mut seen = self.free.load(Ordering::Acquire);
        loop {
            let index = Self::first(seen).checked_sub(1)?;
            let next = self.slots[index].next.load(Ordering::Acquire);
            match self.free.compare_exchange_weak(seen, Self::head(seen, next), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(now) => seen = now,
            }
        }
    }

    fn push(&self, index: usize, slot: &Slot<T>) {
        let mut seen = self.free.load(Ordering::Acquire);
        loop {
            slot.next.store(Self::first(seen), Ordering::Release);
            let head = Self::head(seen, index + 1);
            match self.free.compare_exchange_weak(seen, head, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn first(head: u64) -> usize {
        (head & u64::from(u32::MAX)) as usize
    }

    fn head(before: u64, first: usize) -> u64 {
        ((before >> 32).wrapping_add(1) << 32) | first as u64
    }
}
