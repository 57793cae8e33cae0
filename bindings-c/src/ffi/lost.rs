//! How the loss of a lease is told: by a descriptor, or by a call.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Weak};

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
            let made = LostFd::new()?;
            let weak = Arc::downgrade(&made.0);
            lease.lease.on_lost_here(move || tell(&weak));
            Ok::<_, std::io::Error>(Box::new(made))
        });
        made.map_or(-1, |made| made.number())
    })
}

/// Closed with the lease: who tells of the loss has only a weak reference.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) struct LostFd(Arc<sys::Descriptor>);

impl LostFd {
    fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(sys::Descriptor::new()?)))
    }

    fn number(&self) -> c_int {
        self.0.number()
    }
}

fn tell(descriptor: &Weak<sys::Descriptor>) {
    if let Some(descriptor) = descriptor.upgrade() {
        descriptor.tell();
    }
}

#[cfg(target_os = "linux")]
mod sys {
    use std::ffi::c_int;
    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::event::{EventfdFlags, eventfd};

    pub(super) struct Descriptor(OwnedFd);

    impl Descriptor {
        pub(super) fn new() -> std::io::Result<Self> {
            Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        }

        pub(super) fn number(&self) -> c_int {
            self.0.as_raw_fd()
        }

        pub(super) fn tell(&self) {
            // Can't fail: it counts to 2^64.
            let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod sys {
    use std::ffi::c_int;
    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd, ioctl_fionbio};

    pub(super) struct Descriptor {
        read: OwnedFd,
        write: OwnedFd,
    }

    impl Descriptor {
        pub(super) fn new() -> std::io::Result<Self> {
            let (read, write) = rustix::pipe::pipe()?;
            for end in [&read, &write] {
                fcntl_setfd(end, fcntl_getfd(end)? | FdFlags::CLOEXEC)?;
                ioctl_fionbio(end, true)?;
            }
            Ok(Self { read, write })
        }

        pub(super) fn number(&self) -> c_int {
            self.read.as_raw_fd()
        }

        pub(super) fn tell(&self) {
            // Written once, so there is room.
            let _ = rustix::io::write(&self.write, &[1]);
        }
    }
}

#[cfg(not(unix))]
mod sys {
    use std::ffi::c_int;

    /// There is none here.
    pub(super) enum Descriptor {}

    impl Descriptor {
        pub(super) fn new() -> std::io::Result<Self> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        pub(super) fn number(&self) -> c_int {
            match *self {}
        }

        pub(super) fn tell(&self) {
            match *self {}
        }
    }
}
