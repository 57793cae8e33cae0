//! Who drives the runtime: a thread that waits for a call drives it while it waits, and a background thread drives it
//! when nobody waits.
//!
//! Handing a call to another thread and being woken by it costs two wake-ups of a thread, which is more than a round
//! trip to a server of the same host. The runtime is one of a single thread at a time: whoever enters it first drives
//! it for all, and passes that on when leaving.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use crate::backend::BoxFuture;

/// For how long nobody may have waited before the background thread drives. A thread that makes one call after the
/// other finds the runtime free each time.
const LINGER: Duration = Duration::from_millis(5);

pub(super) struct Engine {
    pub(super) runtime: Runtime,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Threads that wait for a call of theirs, and drive.
    waiting: AtomicUsize,
    /// Counts the calls that were waited for, so that the background thread sees whether there were any.
    waits: AtomicUsize,
    /// Calls that nobody's thread waits for: with one under way the background thread doesn't linger.
    detached: AtomicUsize,
    /// Whether the background thread drives, or is about to.
    background: AtomicBool,
    /// Asks it to leave.
    leave: Notify,
    /// Calls that were handed over and not yet begun, in their order: many are begun by one wake-up.
    inbox: Mutex<Vec<BoxFuture<'static, ()>>>,
    arrived: Notify,
    thread: OnceLock<Thread>,
}

/// One call that nobody's thread waits for.
struct Detached(Arc<Shared>);

impl Engine {
    /// Starts it, with its background thread.
    pub(super) fn start() -> &'static Self {
        const HELP: &str = "the runtime could not be started: raise the limit on threads or descriptors";
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(64)
            .thread_name("dlock-pool")
            .enable_all()
            .build()
            .expect(HELP);
        // Never dropped: a thread may be in it until the process ends.
        let engine: &'static Self = Box::leak(Box::new(Self { runtime, shared: Arc::default() }));
        let thread = std::thread::Builder::new().name("dlock".to_owned()).spawn(|| engine.background()).expect(HELP);
        let _ = engine.shared.thread.set(thread.thread().clone());
        engine.runtime.spawn(engine.begin());
        engine
    }

    /// Drives this, and everything else meanwhile, on the calling thread.
    pub(super) fn block_on<F: Future>(&self, work: F) -> F::Output {
        struct Waiting<'a>(&'a Shared);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.waiting.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let shared = &*self.shared;
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(shared);
        shared.waits.fetch_add(1, Ordering::Relaxed);
        if shared.background.load(Ordering::SeqCst) && shared.detached.load(Ordering::SeqCst) == 0 {
            shared.leave.notify_one();
        }
        self.runtime.block_on(work)
    }

    /// Runs this, and has the runtime driven until it is done. What is handed over by one thread begins in its order.
    pub(super) fn submit(&self, work: impl Future<Output = ()> + Send + 'static) {
        let detached = self.detach();
        let work = Box::pin(async move {
            let _detached = detached;
            work.await;
        });
        let mut inbox = self.shared.inbox();
        inbox.push(work);
        let first = inbox.len() == 1;
        drop(inbox);
        if first {
            self.shared.arrived.notify_one();
        }
    }

    /// Begins what is handed over.
    fn begin(&self) -> impl Future<Output = ()> + use<> {
        let shared = self.shared.clone();
        async move {
            loop {
                shared.arrived.notified().await;
                let calls = std::mem::take(&mut *shared.inbox());
                calls.into_iter().for_each(|call| drop(tokio::spawn(call)));
            }
        }
    }

    fn detach(&self) -> Detached {
        let shared = &self.shared;
        shared.detached.fetch_add(1, Ordering::SeqCst);
        if !shared.background.load(Ordering::SeqCst)
            && let Some(thread) = shared.thread.get()
        {
            thread.unpark();
        }
        Detached(shared.clone())
    }

    fn background(&self) {
        let shared = &*self.shared;
        loop {
            shared.background.store(true, Ordering::SeqCst);
            if shared.waiting.load(Ordering::SeqCst) == 0 || shared.detached.load(Ordering::SeqCst) > 0 {
                self.runtime.block_on(shared.leave.notified());
            }
            shared.background.store(false, Ordering::SeqCst);
            loop {
                let before = shared.waits.load(Ordering::Relaxed);
                if shared.detached.load(Ordering::SeqCst) > 0 {
                    break;
                }
                std::thread::park_timeout(LINGER);
                let quiet = shared.waits.load(Ordering::Relaxed) == before;
                if quiet && shared.waiting.load(Ordering::SeqCst) == 0 {
                    break;
                }
            }
        }
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Vec<BoxFuture<'static, ()>>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.detached.fetch_sub(1, Ordering::SeqCst);
    }
}
