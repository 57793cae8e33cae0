//! The library's own threads: each has a name, and leaves the program's signals to the program's threads.

#![allow(unsafe_code)]

use std::io;
use std::thread::{Builder, Thread};

use crate::error::Error;

/// Starts one.
///
/// # Errors
/// Those of the system, which has none to give.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    // The new thread inherits the mask: it never runs a moment without it.
    #[cfg(unix)]
    let _masked = (!mutant!("process-signals-taken")).then(mask::Masked::new);
    Ok(Builder::new().name(name.to_owned()).spawn(work)?.thread().clone())
}

/// The error of what couldn't be started: the system's limit, how high it is, and what to do.
pub(crate) fn exhausted(what: &str, error: &io::Error) -> Error {
    Error::unavailable(format!("{what}: {error}; {}", limit(error)))
}

#[cfg(unix)]
fn limit(error: &io::Error) -> String {
    use rustix::io::Errno;
    use rustix::process::{Resource, getrlimit};
    let now = |resource| getrlimit(resource).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => format!(
            "RLIMIT_NOFILE is {}: close descriptors, or raise it (ulimit -n), and try again",
            now(Resource::Nofile)
        ),
        Some(Errno::NFILE) => "the host has none left: raise fs.file-max, and try again".to_owned(),
        Some(Errno::AGAIN) => format!(
            "RLIMIT_NPROC is {}: end threads, raise it (ulimit -u) or the pids.max of the cgroup, and try again",
            now(Resource::Nproc)
        ),
        _ => "try again when there is memory, and a thread and descriptors to be had".to_owned(),
    }
}

#[cfg(not(unix))]
fn limit(_: &io::Error) -> String {
    "try again when there is memory, and a thread and descriptors to be had".to_owned()
}

#[cfg(unix)]
mod mask {
    use std::mem::MaybeUninit;
    use std::ptr::null_mut;

    /// As long as this is there the calling thread has all signals blocked but those that tell of its own faults.
    pub(super) struct Masked(libc::sigset_t);

    /// Sent to the thread that causes them. Blocked, they end the process past the handler that the program may have.
    const FAULTS: [i32; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

    impl Masked {
        pub(super) fn new() -> Self {
            let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            // SAFETY: both sets are valid for the writes, and are read only when they have been filled. These calls
            // fail for no set and no signal that is named here.
            unsafe {
                libc::sigfillset(all.as_mut_ptr());
                for fault in FAULTS {
                    libc::sigdelset(all.as_mut_ptr(), fault);
                }
                libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
                Self(before.assume_init())
            }
        }
    }

    impl Drop for Masked {
        fn drop(&mut self) {
            // SAFETY: a set that `pthread_sigmask` gave.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, null_mut()) };
        }
    }
}
