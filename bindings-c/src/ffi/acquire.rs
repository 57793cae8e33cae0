//! Acquires: on the caller's thread, or in the background with a callback.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::time::Duration;

use dlock::{Canceller, Op as Call, Result, runtime};

use super::client::Client;
use super::error::{Error, Status};
use super::lease::Lease;
use super::options::{Options, lock};
use super::{Handled, Out, User, catch_panic, free, get, guard, insert};
use crate::handle::{self, Table};

/// An acquire in the background.
pub struct Op {
    canceller: Canceller,
    epoch: u32,
}

impl Handled for Op {
    const NAME: &'static str = "acquire";

    fn table() -> &'static Table<Self> {
        static TABLE: Table<Op> = Table::new(handle::Kind::Op);
        &TABLE
    }
}

/// A callback that receives the result of an acquire in the background. The result is DLOCK_OK with a lease, or another
/// status with an error. The other pointer is NULL. The user frees the lease. The library frees the error after the
/// callback has returned.
pub type Acquired =
    Option<unsafe extern "C" fn(user: *mut c_void, status: Status, lease: *mut Lease, error: *mut Error)>;

unsafe fn acquired(
    client: *mut Client,
    key: *const c_char,
    options: *const Options,
    lease: *mut *mut Lease,
    err: *mut *mut Error,
    acquire: impl FnOnce(&dlock::Lock) -> Call<dlock::Lease>,
) -> Status {
    let acquire = || {
        let out = Out::needed("lease", lease)?;
        // SAFETY: as the caller promises.
        let lock = unsafe { lock(client, key, options) }?;
        out.put(insert(Lease::from(acquire(&lock).wait()?)));
        Ok(())
    };
    // SAFETY: as the caller promises.
    unsafe { guard(err, acquire) }
}

/// Acquires a lock. The options limit the wait; options may be NULL, which means DLOCK_OPTIONS_INIT. A signal doesn't
/// end the wait. To end it from outside, use dlock_acquire_async and dlock_cancel. DLOCK_TIMEOUT: the lock was busy
/// until the deadline.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_acquire(
    client: *mut Client,
    key: *const c_char,
    options: *const Options,
    lease: *mut *mut Lease,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: as this function's.
    unsafe { acquired(client, key, options, lease, err, dlock::Lock::acquire) }
}

/// Tries once to acquire a lock. Ignores wait_ms and retry_tries; the rest is as in dlock_acquire. DLOCK_TIMEOUT: the
/// lock is busy.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_try_acquire(
    client: *mut Client,
    key: *const c_char,
    options: *const Options,
    lease: *mut *mut Lease,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: as this function's.
    unsafe { acquired(client, key, options, lease, err, |lock| lock.acquire_for(Some(Duration::ZERO))) }
}

/// Begins to acquire a lock and returns at once. The return value reports an argument that can't be used. The callback
/// reports every other outcome. The callback runs exactly once if this function returns DLOCK_OK, and never otherwise.
/// It runs on a thread of the library's pool, maybe before this function returns, and also after dlock_cancel. op may
/// be NULL. Otherwise op receives a handle for dlock_cancel. The handle ends by itself when the callback returns.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_acquire_async(
    client: *mut Client,
    key: *const c_char,
    options: *const Options,
    callback: Acquired,
    user: *mut c_void,
    op: *mut *mut Op,
    err: *mut *mut Error,
) -> Status {
    let begin = || {
        let callback = callback.ok_or_else(|| dlock::Error::invalid("callback is NULL: pass a function"))?;
        // SAFETY: as this function's.
        let lock = unsafe { lock(client, key, options) }?;
        lock.check()?;
        let call = lock.acquire();
        // The handle is stored before the call can end, because the end of the call frees the handle.
        let handle = insert(Op { canceller: call.canceller(), epoch: runtime::epoch() });
        if let Ok(out) = Out::needed("op", op) {
            out.put(handle);
        }
        let (user, handle) = (User::new(user), User::new(handle.cast()));
        let end = move |result: Result<dlock::Lease>| {
            let (status, lease, error) = match result {
                Ok(lease) => (Status::DLOCK_OK, insert(Lease::from(lease)), ptr::null_mut()),
                Err(error) => (error.kind().into(), ptr::null_mut(), insert(Error::from(error))),
            };
            // SAFETY: the caller passed a function that takes these.
            unsafe { callback(user.pointer(), status, lease, error) };
            free(error);
            free::<Op>(handle.pointer().cast());
        };
        drop(call.on_done(move |result| dlock::callbacks::pool(move || catch_panic((), || end(result)))));
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { guard(err, begin) }
}

/// Cancels an acquire in the background. The callback gets DLOCK_CANCELLED within 250 ms, or at once after a second
/// call of this function. The callback gets DLOCK_OK if the lock had been granted before. Returns DLOCK_INVALID once
/// the callback has returned, and in a child of fork.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_cancel(op: *mut Op) -> Status {
    let cancel = || {
        let op = get(op)?;
        if op.epoch != runtime::epoch() {
            return Err(dlock::Error::invalid("the acquire was begun before a fork and belongs to the parent"));
        }
        op.canceller.cancel();
        Ok(())
    };
    // SAFETY: no error is asked for.
    unsafe { guard(ptr::null_mut(), cancel) }
}
