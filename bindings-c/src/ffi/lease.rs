//! Leases: their proof of ownership, their validity and their end.

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

/// A lock that is held until it is released, lost or freed.
pub struct Lease {
    pub(crate) lease: dlock::Lease,
    token: OnceBox<CString>,
    key: OnceBox<CString>,
    /// The descriptor that is readable when the lease is lost. It is closed together with this struct, because the hook
    /// of the loss has only a weak reference.
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

/// Reads from a lease. Returns `otherwise` if there is no lease.
fn read<T: Copy>(lease: *mut Lease, otherwise: T, read: impl FnOnce(&Lease) -> T) -> T {
    catch_panic(otherwise, || get(lease).map_or(otherwise, |lease| read(&lease)))
}

/// Releases the lock. The handle stays until dlock_lease_free. A second release returns DLOCK_OK and does nothing.
/// DLOCK_LOST: the lock had been lost. DLOCK_BACKEND, temporary: the backend didn't confirm the release within 5 s.
/// Then the lease is over for this process all the same, and the lock ends by its ttl.
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

/// Frees a lease. A held lock is released in the background; this function doesn't wait for that. Does nothing for NULL
/// and bad handles.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_free(lease: *mut Lease) {
    // The release is explicit, because a thread that waits for the loss at this moment keeps the lease alive.
    catch_panic((), || drop(remove(lease).map(|lease| lease.lease.release().on_done(drop))));
}

/// Renews the lease at once. ttl_ms is the new ttl; 0: the granted ttl. DLOCK_LOST and DLOCK_NOT_HELD: as
/// dlock_lease_check. DLOCK_INVALID: the backend can't keep the ttl. DLOCK_BACKEND: the backend didn't answer, and the
/// lease stays valid until its end.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_renew(lease: *mut Lease, ttl_ms: i64, err: *mut *mut Error) -> Status {
    let renew = || {
        let ttl = time("ttl_ms", ttl_ms)?;
        get(lease)?.lease.renew((!ttl.is_zero()).then_some(ttl)).wait()
    };
    // SAFETY: as this function's.
    unsafe { guard(err, renew) }
}

/// Checks by the clock that the lease still owns the lock. Does no I/O. DLOCK_LOST: the lock was lost. DLOCK_NOT_HELD:
/// the lease was released, or belongs to a parent of this process.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_lease_check(lease: *mut Lease, err: *mut *mut Error) -> Status {
    // SAFETY: as this function's.
    unsafe { guard(err, || get(lease)?.lease.check()) }
}

/// Returns the fencing token. Every later grant of the key has a greater one. Returns 0 if the backend has no fencing
/// tokens, and for a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_fence(lease: *mut Lease) -> i64 {
    read(lease, 0, |lease| lease.lease.fence().map_or(0, u64::cast_signed))
}

/// Returns the time for which the lease stays valid with no further renewal. 0: not held. INT64_MAX: no limit. -1: bad
/// handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_valid_for_ms(lease: *mut Lease) -> i64 {
    read(lease, -1, |lease| millis(lease.lease.valid_for()))
}

/// Returns the granted ttl. -1: bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_ttl_ms(lease: *mut Lease) -> i64 {
    read(lease, -1, |lease| millis(lease.lease.ttl()))
}

/// Returns the owner token: the text that proves ownership. The text is valid until dlock_lease_free. NULL: bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_token(lease: *mut Lease) -> *const c_char {
    read(lease, ptr::null(), |lease| lease.token.get_or_init(|| Box::new(c_text(lease.lease.token()))).as_ptr())
}

/// Returns the key, as the caller gave it. The text is valid until dlock_lease_free. NULL: bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_key(lease: *mut Lease) -> *const c_char {
    read(lease, ptr::null(), |lease| lease.key.get_or_init(|| Box::new(c_text(lease.lease.key()))).as_ptr())
}

/// Waits until the lease is over. DLOCK_LOST: it was lost. DLOCK_NOT_HELD: it was released or freed. DLOCK_TIMEOUT:
/// timeout_ms passed before. A timeout_ms of -1 means no limit.
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
