//! The threads that drive the runtime: a thread that waits for a call drives it while it waits, and a background thread
//! drives it when nobody waits.
//!
//! Handing a call to another thread and being woken by it costs two wake-ups of a thread, which is more than a round
//! trip to a server of the same host. The runtime is one of a single thread at a time: whoever enters it first drives
//! it for all, and passes that on when leaving.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

#[cfg(unix)]
use rustix::fs::{Stat, fstat};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use crate::error::Result;
#[cfg(unix)]
use crate::error::{Error, Kind};

#[cfg(unix)]
use super::close_on_fork::CloseOnFork;
use super::lock::lock;
use super::threads;

/// A boxed future: one allocation a round trip buys one object-safe trait.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// For how long nobody may have driven before the background thread does. A thread that makes one call after the other
/// finds the runtime free each time.
const LINGER: Duration = Duration::from_millis(5);
/// For how long the background thread drives at the least once it has come: callers that send it away at once, and
/// drive nothing themselves, don't keep the runtime still.
const STAY: Duration = Duration::from_millis(1);

pub(super) struct Executor {
    pub(super) runtime: Runtime,
    shared: Arc<Shared>,
    #[cfg(unix)]
    mark: Mark,
}

#[derive(Default)]
struct Shared {
    /// Steps as the runtime's driver goes to sleep, and as it wakes: odd while somebody sleeps in it. That it moves, or
    /// is odd, is how the background thread knows that somebody drives; that somebody calls doesn't mean it.
    steps: AtomicUsize,
    /// Calls that nobody's thread waits for: with one under way the background thread doesn't linger.
    detached: AtomicUsize,
    /// True if the background thread drives, or is about to.
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

impl Executor {
    /// Starts it, with its background thread.
    pub(super) fn start() -> Result<&'static Self> {
        let shared = Arc::new(Shared::default());
        let (asleep, awake) = (shared.clone(), shared.clone());
        let built = Builder::new_current_thread()
            .thread_name("dlock-blocking")
            .max_blocking_threads(1)
            .on_thread_park(move || asleep.step())
            .on_thread_unpark(move || awake.step())
            .enable_all()
            .build();
        let failed = |error| threads::exhausted("the runtime can't be started", &error);
        let runtime = built.map_err(failed)?;
        #[cfg(unix)]
        let mark = Mark::new().map_err(failed)?;
        let (give, given) = sync_channel::<&'static Self>(1);
        let thread = threads::start("dlock", move || given.into_iter().for_each(Self::background));
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                // Not dropped: the caller may be in a runtime of its own, where nothing may block.
                runtime.shutdown_background();
                return Err(failed(error));
            }
        };
        let _ = shared.thread.set(thread);
        // Never dropped: a thread may be in it until the process ends.
        let executor: &'static Self = Box::leak(Box::new(Self {
            runtime,
            shared,
            #[cfg(unix)]
            mark,
        }));
        executor.runtime.spawn(executor.begin());
        let _ = give.send(executor);
        Ok(executor)
    }

    /// Returns true if its descriptors are there. Without them it neither waits nor wakes, and says so by panics.
    ///
    /// # Errors
    /// `Backend`, for good, when the program has closed them.
    #[cfg(unix)]
    pub(super) fn whole(&self) -> Result<()> {
        if self.mark.is_there() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Backend,
            "the program has closed the descriptors that dlock works with: call closefrom and its like before the first \
             use of dlock, or in a child of fork before anything else",
        ))
    }

    #[cfg(not(unix))]
    pub(super) fn whole(&self) -> Result<()> {
        let _: &Self = self;
        Ok(())
    }

    /// Drives this, and everything else meanwhile, on the calling thread.
    pub(super) fn block_on<F: Future>(&self, work: F) -> F::Output {
        let shared = &*self.shared;
        let mut work = pin!(work);
        if mutant!("process-calls-count-as-driving") {
            shared.steps.fetch_add(2, Ordering::Relaxed);
        } else if shared.background.load(Ordering::SeqCst) {
            // What is ready needs nobody to drive, and sends nobody away.
            let _within = self.runtime.enter();
            if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return result;
            }
        }
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
            self.runtime.block_on(async {
                tokio::time::sleep(STAY).await;
                shared.leave.notified().await;
            });
            shared.background.store(false, Ordering::SeqCst);
            let mut steps = shared.steps();
            while shared.detached.load(Ordering::SeqCst) == 0 {
                std::thread::park_timeout(LINGER);
                let before = std::mem::replace(&mut steps, shared.steps());
                if steps == before && steps.is_multiple_of(2) {
                    break;
                }
            }
        }
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Vec<BoxFuture<'static, ()>>> {
        lock(&self.inbox)
    }

    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.detached.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A descriptor like those of the runtime: closed when they are, and told from one that has got its number.
#[cfg(unix)]
struct Mark {
    fd: CloseOnFork,
    is: Stat,
}

#[cfg(unix)]
impl Mark {
    fn new() -> std::io::Result<Self> {
        let fd = CloseOnFork::open(|| std::io::pipe().map(|(read, _)| read.into()))?;
        let is = fstat(&fd)?;
        Ok(Self { fd, is })
    }

    fn is_there(&self) -> bool {
        fstat(&self.fd).is_ok_and(|found| (found.st_dev, found.st_ino) == (self.is.st_dev, self.is.st_ino))
    }
}
