//! Watches of lock files by inotify. Without inotify there are none, and contenders poll.

use std::path::Path;
use std::sync::Arc;

#[cfg(target_os = "linux")]
use once_cell::sync::OnceCell;
use tokio::sync::Notify;

/// The files that this client watches: one inotify instance for all, created with the first waiter.
#[derive(Debug, Default)]
pub(super) struct Watcher(#[cfg(target_os = "linux")] OnceCell<Arc<linux::Instance>>);

/// A file that is watched until this is dropped.
pub(super) struct Watch {
    notify: Arc<Notify>,
    inode: (u64, u64),
    #[cfg(target_os = "linux")]
    instance: Arc<linux::Instance>,
}

#[cfg(not(target_os = "linux"))]
impl Watcher {
    /// Returns `None`: without inotify contenders poll.
    pub(super) fn watch(&self, _: &Path, _: (u64, u64)) -> Option<Watch> {
        None
    }
}

#[cfg(target_os = "linux")]
impl Watcher {
    /// Watches a file. `None`: the system has no more watches, and the contender polls.
    pub(super) fn watch(&self, path: &Path, inode: (u64, u64)) -> Option<Watch> {
        let instance = self.0.get_or_try_init(linux::Instance::start).ok()?.clone();
        let notify = Arc::new(Notify::new());
        instance.add(path, &notify).ok()?;
        Some(Watch { notify, inode, instance })
    }
}

impl Watch {
    /// Returns the notification of its events.
    pub(super) fn notify(&self) -> Arc<Notify> {
        self.notify.clone()
    }

    /// Returns device and inode of the file.
    pub(super) fn inode(&self) -> (u64, u64) {
        self.inode
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        self.instance.remove(&self.notify);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::sync::{Mutex, OnceLock, Weak};

    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init, remove_watch};
    use rustix::io;
    use tokio::io::unix::AsyncFd;
    use tokio::task::AbortHandle;

    use super::{Arc, Notify, Path};
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
            let mut watched = runtime::lock(&self.watched);
            let watch = add_watch(&*self.fd, path, what)?;
            watched.entry(watch).or_default().push(notify.clone());
            Ok(())
        }

        pub(super) fn remove(&self, notify: &Arc<Notify>) {
            let mut watched = runtime::lock(&self.watched);
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
            let watched = runtime::lock(&self.watched);
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
