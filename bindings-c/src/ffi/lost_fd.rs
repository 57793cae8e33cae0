//! The descriptor that reports the loss of a lease.

use std::ffi::c_int;
use std::sync::{Arc, Weak};

/// A descriptor that becomes readable when the lease is lost. It is closed with the lease: the hook of the loss has only a
/// weak reference.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) struct LostFd(Arc<sys::Descriptor>);

impl LostFd {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(sys::Descriptor::new()?)))
    }

    pub(super) fn number(&self) -> c_int {
        self.0.number()
    }

    /// Returns what makes the descriptor readable, without keeping it open.
    pub(super) fn signal(&self) -> impl FnOnce() + Send + use<> {
        let descriptor = Arc::downgrade(&self.0);
        move || tell(&descriptor)
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
