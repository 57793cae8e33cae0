//! Sixteen bytes of a file, shared by every process that maps them.

#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Two counters in a file.
#[derive(Debug)]
pub(super) struct Mapped(NonNull<[AtomicU64; 2]>);

pub(super) const SIZE: usize = size_of::<[AtomicU64; 2]>();

// SAFETY: what it points to is mapped for as long as it lives, and only ever used as atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first 16 bytes of a file that has at least as many.
    pub(super) fn new(file: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice, aligned to a page.
        let at =
            unsafe { mmap(std::ptr::null_mut(), SIZE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0) }?;
        NonNull::new(at.cast()).map(Self).ok_or(io::Errno::NOMEM)
    }

    /// The counters.
    pub(super) fn get(&self) -> &[AtomicU64; 2] {
        // SAFETY: mapped until `drop`, aligned, and any bits are valid for an atomic number.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), SIZE) };
        debug_assert!(unmapped.is_ok());
    }
}
