//! A contender for a lock file: inotify wakes it when a process closes the file, and a poll is the safety net. It never
//! blocks a thread in flock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::File;
use super::counter::LOOK;
use super::grant::LockFile;
use crate::contract::Claim;
use crate::contract::{Attempt, Contender, RetryHint};
use crate::error::Result;
use crate::runtime::BoxFuture;

/// A claim that asks for its lock file.
pub(super) struct FileContender {
    backend: Arc<File>,
    claim: Claim,
    open: Option<LockFile>,
    watch: Option<Watch>,
    /// True if every holder in the directory knows that a process waits.
    marked: bool,
    tries: u32,
}

impl FileContender {
    pub(super) fn new(backend: Arc<File>, claim: Claim) -> Self {
        Self { backend, claim, open: None, watch: None, marked: false, tries: 0 }
    }

    /// Tries once.
    fn try_once(&mut self) -> Result<Attempt> {
        if let Some(left) = self.backend.yield_to_others(&self.claim) {
            return Ok(Attempt::Busy(RetryHint { after: left, on: None }));
        }
        let mut attempt = self.backend.take(&self.claim, &mut self.open)?;
        if attempt.is_none() && self.claim.wait {
            // A process that unlocks after this sees the mark and wakes us. One that has unlocked before is found by
            // the second try. If the mark can't be written, the contender polls.
            match self.backend.dir()?.counter().mark_waiting() {
                Ok(marked) => {
                    self.marked = marked;
                    self.follow();
                }
                Err(_) => self.watch = None,
            }
            attempt = self.backend.take(&self.claim, &mut self.open)?;
        }
        self.tries = self.tries.saturating_add(1);
        Ok(attempt.unwrap_or_else(|| Attempt::Busy(self.wake())))
    }

    /// Watches the open file.
    fn follow(&mut self) {
        let Some(open) = &self.open else { return };
        if self.watch.as_ref().is_none_or(|watch| watch.inode != open.inode()) {
            self.watch = self.backend.watcher.watch(Path::new(&*self.claim.options.name), open.inode());
        }
    }

    /// Returns the hint for the next try.
    fn wake(&self) -> RetryHint {
        let notify = self.watch.as_ref().map(|watch| watch.notify.clone());
        // From 1 ms, doubled up to 50 ms. With a watch, which makes it a mere safety net, 50 ms at once.
        let longest = match &notify {
            Some(_) if self.marked => 50_000,
            // A process that has read the file before the mark was written may unlock without another read.
            Some(_) => 2 * u64::try_from(LOOK.as_micros()).unwrap_or(0),
            None => (1_000 << self.tries.min(6)).min(50_000),
        };
        let after = Duration::from_micros(fastrand::u64(longest / 2..=longest));
        RetryHint {
            after,
            on: notify.map(|notify| -> BoxFuture<'static, ()> { Box::pin(async move { notify.notified().await }) }),
        }
    }
}

impl Contender for FileContender {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let attempt = self.try_once();
        Box::pin(std::future::ready(attempt))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        self.open = None;
        self.watch = None;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The files that this client watches: one inotify instance for all, created with the first waiter.
#[derive(Debug, Default)]
pub(super) struct Watcher(#[cfg(target_os = "linux")] once_cell::sync::OnceCell<Arc<inotify::Instance>>);

/// A file that is watched until this is dropped.
pub(super) struct Watch {
    notify: Arc<Notify>,
    inode: (u64, u64),
    #[cfg(target_os = "linux")]
    instance: Arc<inotify::Instance>,
}

#[cfg(not(target_os = "linux"))]
impl Watcher {
    /// Returns `None`: without inotify contenders poll.
    fn watch(&self, _: &Path, _: (u64, u64)) -> Option<Watch> {
        None
    }
}

#[cfg(target_os = "linux")]
impl Watcher {
    /// Watches a file. `None`: the system has no more watches, and the contender polls.
    fn watch(&self, path: &Path, inode: (u64, u64)) -> Option<Watch> {
        let instance = self.0.get_or_try_init(inotify::Instance::start).ok()?.clone();
        let notify = Arc::new(Notify::new());
        instance.add(path, &notify).ok()?;
        Some(Watch { notify, inode, instance })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        self.instance.remove(&self.notify);
    }
}

#[cfg(target_os = "linux")]
mod inotify {
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::sync::{OnceLock, Weak};

    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init, remove_watch};
    use rustix::io;
    use tokio::io::unix::AsyncFd;
    use tokio::task::AbortHandle;

    use super::{Arc, HashMap, Mutex, Notify, Path, PoisonError};
    use crate::runtime::{self, close_on_fork, close_on_fork::CloseOnFork};

    /// An inotify instance, and the contenders to wake for each of its watches.
    #[derive(Debug)]
    pub(super) struct Instance {
        fd: Arc<CloseOnFork>,
        watched: Mutex<HashMap<i32, Vec<Arc<Notify>>>>,
        reader: OnceLock<AbortHandle>,
    }

    impl Drop for Instance {
        fn drop(&mut self) {
            if let Some(reader) = self.reader.get() {
                reader.abort();
            }
        }
    }

    impl Instance {
        pub(super) fn start() -> std::io::Result<Arc<Self>> {
            let fd = Arc::new(CloseOnFork::open(|| init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK))?);
            let instance = Arc::new(Self { fd: fd.clone(), watched: Mutex::default(), reader: OnceLock::new() });
            let runtime = runtime::handle().map_err(std::io::Error::other)?;
            let _context = runtime.enter();
            let readable = close_on_fork::readable(fd)?;
            let reader = runtime.spawn(read(readable, Arc::downgrade(&instance)));
            let _ = instance.reader.set(reader.abort_handle());
            Ok(instance)
        }

        pub(super) fn add(&self, path: &Path, notify: &Arc<Notify>) -> io::Result<()> {
            // A release shows as the closing of the file, a removal or replacement as a change of its links.
            let what = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            let watch = add_watch(&*self.fd, path, what)?;
            watched.entry(watch).or_default().push(notify.clone());
            Ok(())
        }

        pub(super) fn remove(&self, notify: &Arc<Notify>) {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.retain(|&watch, all| {
                all.retain(|other| !Arc::ptr_eq(other, notify));
                if all.is_empty() {
                    // The watch is gone already if the file is.
                    let _ = remove_watch(&*self.fd, watch);
                }
                !all.is_empty()
            });
        }

        fn wake(&self, watch: i32) {
            let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            for notify in watched.get(&watch).into_iter().flatten() {
                notify.notify_one();
            }
        }
    }

    /// Passes events on until the instance is gone.
    async fn read(readable: AsyncFd<Arc<CloseOnFork>>, instance: Weak<Instance>) {
        while let Ok(mut ready) = readable.readable().await {
            let Some(instance) = instance.upgrade() else { return };
            let mut space = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(readable.get_ref().as_fd(), &mut space);
            while let Ok(event) = reader.next() {
                instance.wake(event.wd());
            }
            ready.clear_ready();
        }
    }
}
