//! A descriptor by which other threads wake whoever polls it: an eventfd, or where there is none a pipe.

use std::io::Result;

/// A descriptor that becomes readable when it is rung. It is closed on exec.
#[derive(Debug)]
pub struct Wake(sys::Ends);

impl Wake {
    /// Makes one.
    ///
    /// # Errors
    /// Those of the system; always where there are no descriptors.
    pub fn new() -> Result<Self> {
        sys::Ends::new().map(Self)
    }

    /// The number of the end that becomes readable.
    pub fn descriptor(&self) -> i32 {
        self.0.descriptor()
    }

    /// Makes it readable.
    pub fn ring(&self) {
        self.0.ring();
    }

    /// Makes it unreadable until it is rung again.
    pub fn hush(&self) {
        self.0.hush();
    }
}

#[cfg(unix)]
mod sys {
    use std::io::Result;
    use std::os::fd::{AsRawFd, OwnedFd};

    #[derive(Debug)]
    pub(super) struct Ends {
        read: OwnedFd,
        /// `None`: the same.
        write: Option<OwnedFd>,
    }

    impl Ends {
        #[cfg(target_os = "linux")]
        pub(super) fn new() -> Result<Self> {
            use rustix::event::{EventfdFlags, eventfd};
            Ok(Self { read: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, write: None })
        }

        #[cfg(not(target_os = "linux"))]
        pub(super) fn new() -> Result<Self> {
            let (read, write) = rustix::pipe::pipe()?;
            for end in [&read, &write] {
                rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
                rustix::io::ioctl_fionbio(end, true)?;
            }
            Ok(Self { read, write: Some(write) })
        }

        pub(super) fn descriptor(&self) -> i32 {
            self.read.as_raw_fd()
        }

        pub(super) fn ring(&self) {
            // It fails only where nobody has read for very long: then it is readable anyway.
            let _ = rustix::io::write(self.write.as_ref().unwrap_or(&self.read), &1_u64.to_ne_bytes());
        }

        pub(super) fn hush(&self) {
            let mut count = [0; 64];
            let _ = rustix::io::read(&self.read, &mut count);
        }
    }
}

#[cfg(not(unix))]
mod sys {
    use std::io::{ErrorKind, Result};

    /// There is none here.
    #[derive(Debug)]
    pub(super) enum Ends {}

    impl Ends {
        pub(super) fn new() -> Result<Self> {
            Err(ErrorKind::Unsupported.into())
        }

        pub(super) fn descriptor(&self) -> i32 {
            match *self {}
        }

        pub(super) fn ring(&self) {
            match *self {}
        }

        pub(super) fn hush(&self) {
            match *self {}
        }
    }
}
