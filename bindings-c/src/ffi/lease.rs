//! Leases: what they prove, how long they count, how they end.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use dlock::runtime::Wake;
use dlock::{Kind, ReleaseOutcome};
use once_cell::race::OnceBox;

use super::error::{Error, Status};
use super::{Handled, c_text, catch_panic, get, guard, limit, millis, remove, time};
use crate::handle::{self, Table};

/// A lock that is held, until it is released, lost or freed.
pub struct Lease {
    pub(crate) lease: dlock::Lease,
    token: OnceBox<CString>,
    key: OnceBox<CString>,
    /// Readable when it is lost. Closed with this: the hook of the loss has only a weak reference.
    pub(crate) lost: OnceBox<Arc<Wake>>,
}

impl Handled for Lease {
    const NAME: &'static str = "lease";

    fn table() -> &'static Table<Self> {
        static TABLE: Table<Lease> = Table::new(handle::Kind::Lease);
        &TABLE
    }
}

impl From<dlock::Lease> for Lease {
    fn from(lease: dlock::Lease) -> Self {
        Self { lease, token: OnceBox::new(), key: OnceBox::new(), lost: OnceBox::new() }
    }
}

/// Reads from a lease; `otherwise` when there is none.
fn read<T: Copy>(lease: *mut Lease, otherwise: T, read: impl FnOnce(&Lease) -> T) -> T {
    catch_panic(otherwise, || get(lease).map_or(otherwise, |lease| read(&lease)))
}

/// Gives the lock back; the handle stays until dlock_lease_free. A second time: DLOCK_OK, and nothing happens. DLOCK_LOST
/// when it had been lost; DLOCK_BACKEND, temporary, when the backend didn't confirm it within 5 s: it is over for this
/// process all the same, and ends by its ttl.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_release(lease: *mut Lease, err: *mut *mut Error) -> Status {
    let release = || {
        let lease = get(lease)?;
        match lease.lease.release().wait()? {
            ReleaseOutcome::Released => Ok(()),
            ReleaseOutcome::Lost => Err(lease.lease.loss()),
        }
    };
    // SAFETY: as this function's.
    unsafe { guard(err, release) }
}

/// Frees a lease. One that is held is given back in the background; this doesn't wait for it. NULL and bad handles: nothing.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_free(lease: *mut Lease) {
    // Given back by name: whoever waits for its loss at this moment keeps it alive.
    catch_panic((), || drop(remove(lease).map(|lease| lease.lease.release().on_done(drop))));
}

/// Renews by hand, with a new ttl, or with the one granted: 0. DLOCK_LOST, DLOCK_NOT_HELD, DLOCK_INVALID for a ttl the
/// backend can't keep; DLOCK_BACKEND when it didn't answer: then the lease counts on until its end.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_renew(lease: *mut Lease, ttl_ms: i64, err: *mut *mut Error) -> Status {
    let renew = || {
        let ttl = time("ttl_ms", ttl_ms)?;
        get(lease)?.lease.renew((!ttl.is_zero()).then_some(ttl)).wait()
    };
    // SAFETY: as this function's.
    unsafe { guard(err, renew) }
}

/// Makes sure that the lock is still ours, by the clock; no I/O. DLOCK_LOST; DLOCK_NOT_HELD when it was released, or by a
/// parent of this process.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_lease_check(lease: *mut Lease, err: *mut *mut Error) -> Status {
    // SAFETY: as this function's.
    unsafe { guard(err, || get(lease)?.lease.check()) }
}

/// The fencing token: greater for every later grant of the key. 0: the backend has none, or a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_fence(lease: *mut Lease) -> i64 {
    read(lease, 0, |lease| lease.lease.fence().map_or(0, u64::cast_signed))
}

/// How long it still counts with no further renewal. 0: not held; INT64_MAX: no limit; -1: a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_valid_for_ms(lease: *mut Lease) -> i64 {
    read(lease, -1, |lease| millis(lease.lease.valid_for()))
}

/// The ttl that was granted. -1: a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_ttl_ms(lease: *mut Lease) -> i64 {
    read(lease, -1, |lease| millis(lease.lease.ttl()))
}

/// The text that proves ownership. Until dlock_lease_free. NULL: a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_token(lease: *mut Lease) -> *const c_char {
    read(lease, ptr::null(), |lease| lease.token.get_or_init(|| Box::new(c_text(lease.lease.token()))).as_ptr())
}

/// The key, as given. Until dlock_lease_free. NULL: a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_key(lease: *mut Lease) -> *const c_char {
    read(lease, ptr::null(), |lease| lease.key.get_or_init(|| Box::new(c_text(lease.lease.key()))).as_ptr())
}

/// Waits until the lease is over: DLOCK_LOST when it was lost, DLOCK_NOT_HELD when it was released or freed, DLOCK_TIMEOUT
/// when the time came first. -1: without end.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_lease_wait_lost(
    lease: *mut Lease,
    timeout_ms: i64,
    err: *mut *mut Error,
) -> Status {
    let wait = || {
        let within = limit("timeout_ms", timeout_ms)?;
        let lease = &get(lease)?.lease;
        lease.check()?;
        lease.lost_within(within).wait()?;
        lease.check()?;
        let within = within.unwrap_or(Duration::MAX);
        Err(dlock::Error::new(Kind::Timeout, format!("the lease still counts after {within:?}")).with_key(lease.key()))
    };
    // SAFETY: as this function's.
    unsafe { guard(err, wait) }
}
