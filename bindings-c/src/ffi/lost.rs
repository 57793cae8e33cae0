//! How the loss of a lease is told: by a descriptor, or by a call.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use dlock::runtime::Wake;

use super::error::{Error, Status};
use super::lease::Lease;
use super::{User, catch_panic, get, guard};

/// Called once when a lease is lost.
pub type Lost = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// Has the callback run once when the lease is lost, at once if it was: on a thread of the library's pool. Not when it is
/// released; but a loss that happened at the same time may still be told, so user has to outlast that.
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

/// A descriptor that becomes readable when the lease is lost, for poll and its like; made by the first call. It is the
/// lease's: not to be read from, written to or closed, and gone with dlock_lease_free. -1: a bad handle, or no descriptor
/// to be had.
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
