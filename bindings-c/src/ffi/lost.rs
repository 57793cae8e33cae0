//! The notification of a lost lease: by a callback, or by a descriptor.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use dlock::runtime::Wake;

use super::error::{Error, Status};
use super::lease::Lease;
use super::{User, catch_panic, get, guard};

/// A callback that is called once when a lease is lost.
pub type Lost = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// Registers a callback that runs once when the lease is lost, or at once if the lease is lost already. It runs on a
/// thread of the library's pool. It doesn't run when the lease is released. But if a loss happens at the same time as
/// the release, the callback may still run, so user has to stay valid for it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_lease_on_lost(
    lease: *mut Lease,
    callback: Lost,
    user: *mut c_void,
    err: *mut *mut Error,
) -> Status {
    let register = || {
        let callback = callback.ok_or_else(|| dlock::Error::invalid("callback is NULL: pass a function"))?;
        let user = User::new(user);
        // SAFETY: the caller passed a function that takes this.
        let tell = move || unsafe { callback(user.pointer()) };
        get(lease)?.lease.on_lost(tell);
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { guard(err, register) }
}

/// Returns a descriptor that becomes readable when the lease is lost, for poll and similar calls. The first call
/// creates the descriptor. It belongs to the lease: don't read from it, write to it or close it. dlock_lease_free
/// closes it. Returns -1 for a bad handle, or if no descriptor can be created.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_lease_lost_fd(lease: *mut Lease) -> c_int {
    catch_panic(-1, || {
        let Ok(lease) = get(lease) else { return -1 };
        let made = lease.lost.get_or_try_init(|| {
            let made = Arc::new(Wake::new()?);
            let wake = Arc::downgrade(&made);
            lease.lease.on_lost_here(move || wake.upgrade().iter().for_each(|wake| wake.ring()));
            Ok::<_, std::io::Error>(Box::new(made))
        });
        made.map_or(-1, |made| made.descriptor())
    })
}
