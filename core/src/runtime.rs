//! The only runtime: when it starts, what a fork does to it, how work gets onto it and how it drains at exit.
//!
//! A forked child has none of its parent's threads. Everything that belongs to one process therefore lives in a
//! [`PerProcess`] slot: the child sees an empty slot and makes its own; what the parent had is leaked, never dropped,
//! since dropping it would wait for threads that don't exist.

#![allow(unsafe_code)]

use std::future::Future;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::clock;

static EPOCH: AtomicU32 = AtomicU32::new(1);

/// Counts the forks that led to this process: what was made in another epoch belongs to another process.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Acquire)
}

/// A value each process makes for itself, on first use.
pub struct PerProcess<T> {
    slot: AtomicPtr<Stamped<T>>,
}

struct Stamped<T> {
    epoch: u32,
    value: OnceLock<T>,
}

impl<T> PerProcess<T> {
    /// An empty slot.
    #[allow(clippy::new_without_default, reason = "a const constructor for statics")]
    pub const fn new() -> Self {
        Self { slot: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// This process's value, made now if there is none.
    pub fn get(&'static self, make: impl FnOnce() -> T) -> &'static T {
        self.stamped().value.get_or_init(make)
    }

    /// This process's value, if it was made.
    pub fn peek(&'static self) -> Option<&'static T> {
        // SAFETY: a non-null pointer came from `Box::into_raw` in `stamped` and is never freed.
        let stamped = unsafe { self.slot.load(Ordering::Acquire).as_ref() }?;
        if stamped.epoch == epoch() { stamped.value.get() } else { None }
    }

    fn stamped(&'static self) -> &'static Stamped<T> {
        watch_forks();
        loop {
            let seen = self.slot.load(Ordering::Acquire);
            // SAFETY: as in `peek`.
            if let Some(stamped) = unsafe { seen.as_ref() }
                && stamped.epoch == epoch()
            {
                return stamped;
            }
            let fresh = Box::into_raw(Box::new(Stamped { epoch: epoch(), value: OnceLock::new() }));
            match self.slot.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: just made by `Box::into_raw`, and never freed once it is in the slot.
                Ok(_) => return unsafe { &*fresh },
                // SAFETY: it never got into the slot, so nobody else has it.
                Err(_) => drop(unsafe { Box::from_raw(fresh) }),
            }
        }
    }
}

static RUNTIME: PerProcess<Runtime> = PerProcess::new();

/// Work that must not be cut off by an orderly exit: releases under way.
static PENDING: AtomicUsize = AtomicUsize::new(0);

/// The runtime's handle. Starts its one thread on first use.
pub fn handle() -> Handle {
    #[cfg(feature = "testing")]
    if let Some(handle) = crate::testing::runtime() {
        return handle;
    }
    RUNTIME
        .get(|| {
            PENDING.store(0, Ordering::Release);
            Builder::new_multi_thread()
                .worker_threads(1)
                .max_blocking_threads(64)
                .thread_name("dlock")
                .enable_all()
                .build()
                .expect("the runtime's thread could not be started: raise the limit on threads or descriptors")
        })
        .handle()
        .clone()
}

/// Runs this in the background.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    #[cfg(feature = "testing")]
    let work = crate::testing::within(work);
    handle().spawn(work);
}

/// Runs this in the background, and has [`drain`] wait for it.
pub(crate) fn spawn_pending(work: impl Future<Output = ()> + Send + 'static) {
    struct Pending;
    impl Drop for Pending {
        fn drop(&mut self) {
            PENDING.fetch_sub(1, Ordering::AcqRel);
        }
    }
    PENDING.fetch_add(1, Ordering::AcqRel);
    let pending = Pending;
    spawn(async move {
        let _pending = pending;
        work.await;
    });
}

/// Runs code of the user's on the pool of threads kept for it: never on the thread that renews leases.
pub fn pool(work: impl FnOnce() + Send + 'static) {
    handle().spawn_blocking(work);
}

/// Drives this on the calling thread, which must not be one of an asynchronous runtime.
pub(crate) fn block_on<F: Future>(work: F) -> F::Output {
    handle().block_on(work)
}

/// Waits until the releases under way are done, for an orderly exit. False: the limit came first.
pub fn drain(limit: Duration) -> bool {
    let end = clock::Instant::now().plus(limit);
    while RUNTIME.peek().is_some() && PENDING.load(Ordering::Acquire) > 0 {
        if end.passed() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Has forks noticed from now on. Called by everything that makes something a child must not share.
#[cfg(unix)]
pub fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are `extern "C"` functions without captures that never unwind; `child` does only what
        // is allowed between fork and exec in a multi-threaded program: atomics and close(2).
        unsafe { libc::pthread_atfork(Some(fork::prepare), Some(fork::parent), Some(fork::child)) };
    });
}

/// There is no fork here.
#[cfg(not(unix))]
pub fn watch_forks() {
    let _: &Once;
}

#[cfg(unix)]
mod fork {
    use super::{EPOCH, Ordering};

    pub(super) extern "C" fn prepare() {
        super::descriptors::freeze();
    }

    pub(super) extern "C" fn parent() {
        super::descriptors::thaw();
    }

    pub(super) extern "C" fn child() {
        EPOCH.fetch_add(1, Ordering::AcqRel);
        super::descriptors::close_all();
        super::descriptors::thaw();
    }
}

/// Descriptors that a child of fork must not share: an inherited flock keeps a dead parent's lock alive, and *succeeds*
/// beside a live one.
#[cfg(unix)]
pub(crate) mod descriptors {
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    #[cfg(target_os = "linux")]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

    #[cfg(target_os = "linux")]
    use tokio::io::{Interest, unix::AsyncFd};

    const NONE: i32 = -1;
    const CHUNK: usize = 1024;

    /// A piece of the table. Pieces are added, never removed: the child's handler must not allocate.
    struct Chunk {
        fds: [AtomicI32; CHUNK],
        next: AtomicPtr<Self>,
    }

    static FIRST: Chunk = Chunk::new();
    static FROZEN: AtomicBool = AtomicBool::new(false);
    static HINT: AtomicUsize = AtomicUsize::new(0);

    impl Chunk {
        const fn new() -> Self {
            Self { fds: [const { AtomicI32::new(NONE) }; CHUNK], next: AtomicPtr::new(std::ptr::null_mut()) }
        }

        fn next(&self) -> Option<&'static Self> {
            // SAFETY: a non-null `next` came from a leaked box.
            unsafe { self.next.load(Ordering::Acquire).as_ref() }
        }

        fn grow(&self) -> &'static Self {
            let fresh = Box::into_raw(Box::new(Self::new()));
            match self.next.compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: just made, and leaked by standing in the list.
                Ok(_) => unsafe { &*fresh },
                Err(other) => {
                    // SAFETY: it never got into the list; `other` did, and is never freed.
                    unsafe {
                        drop(Box::from_raw(fresh));
                        &*other
                    }
                }
            }
        }
    }

    /// Keeps forks and the opening of descriptors apart, so that no child has one that the table doesn't know.
    pub(super) fn freeze() {
        while FROZEN.compare_exchange_weak(false, true, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
    }

    pub(super) fn thaw() {
        FROZEN.store(false, Ordering::Release);
    }

    pub(super) fn close_all() {
        let mut chunk = Some(&FIRST);
        while let Some(current) = chunk {
            for fd in &current.fds {
                let fd = fd.swap(NONE, Ordering::AcqRel);
                if fd != NONE {
                    // SAFETY: this process's copy of a descriptor that only `Unshared` owns, and `Unshared` doesn't
                    // close one of another epoch.
                    unsafe { libc::close(fd) };
                }
            }
            chunk = current.next();
        }
    }

    /// A descriptor that a child of fork doesn't get.
    #[derive(Debug)]
    pub(crate) struct Unshared {
        fd: Option<OwnedFd>,
        entry: &'static AtomicI32,
        epoch: u32,
    }

    impl Unshared {
        /// Opens a descriptor and enters it into the table, with no fork in between.
        pub(crate) fn open<E>(open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Self, E> {
            super::watch_forks();
            freeze();
            let made = open().map(|fd| {
                let entry = enter(fd.as_raw_fd());
                Self { fd: Some(fd), entry, epoch: super::epoch() }
            });
            thaw();
            made
        }
    }

    /// The descriptor as one that the runtime tells of when it can be read. Within the runtime's context.
    #[cfg(target_os = "linux")]
    pub(crate) fn readable(fd: Arc<Unshared>) -> std::io::Result<AsyncFd<Arc<Unshared>>> {
        // SAFETY: an `Unshared` keeps its one descriptor open until it is dropped, and the `AsyncFd` owns a count of it.
        // In a child of fork it is closed, but there this runtime doesn't run.
        Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
    }

    impl AsFd for Unshared {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_ref().expect("present until dropped").as_fd()
        }
    }

    impl AsRawFd for Unshared {
        fn as_raw_fd(&self) -> i32 {
            self.as_fd().as_raw_fd()
        }
    }

    impl Drop for Unshared {
        fn drop(&mut self) {
            let Some(fd) = self.fd.take() else { return };
            if self.epoch == super::epoch() {
                freeze();
                self.entry.store(NONE, Ordering::Release);
                drop(fd);
                thaw();
            } else {
                // The child's handler has closed it, and the number may be somebody else's by now.
                std::mem::forget(fd);
            }
        }
    }

    fn enter(fd: i32) -> &'static AtomicI32 {
        let mut chunk = &FIRST;
        loop {
            let start = HINT.fetch_add(1, Ordering::Relaxed);
            for i in 0..CHUNK {
                let entry = &chunk.fds[(start + i) % CHUNK];
                if entry.compare_exchange(NONE, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return entry;
                }
            }
            chunk = match chunk.next() {
                Some(next) => next,
                None => chunk.grow(),
            };
        }
    }
}
