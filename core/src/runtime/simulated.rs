//! Simulated time and simulated processes, for tests.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Handle};

use crate::clock::virtual_time;
use crate::mutant;

thread_local! {
    static RUNTIME: RefCell<Option<Handle>> = const { RefCell::new(None) };
    static PROCESS: RefCell<Option<Process>> = const { RefCell::new(None) };
}

/// Runs this in virtual time, on this thread alone, with everything random drawn from the seed: the same seed gives the
/// same run.
pub fn simulate<T>(seed: u64, mutant: Option<&'static str>, work: impl Future<Output = T>) -> T {
    struct Real;
    impl Drop for Real {
        fn drop(&mut self) {
            virtual_time::end();
            RUNTIME.set(None);
            mutant::choose(None);
        }
    }
    // Dropped after the runtime: what its tasks do when they are dropped stays in the simulation.
    let _real = Real;
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of the calling thread");
    RUNTIME.set(Some(runtime.handle().clone()));
    mutant::choose(mutant);
    fastrand::seed(seed);
    runtime.block_on(async {
        virtual_time::begin();
        work.await
    })
}

/// A simulated process: whatever it runs, and whatever that puts onto the runtime, can be stopped and killed as one.
#[derive(Clone, Default)]
pub struct Process(Arc<Mutex<Life>>);

#[derive(Default)]
struct Life {
    stopped: bool,
    killed: bool,
    waiting: Vec<Waker>,
}

impl Process {
    /// Runs this in the process.
    pub fn run<T: 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        Within { process: self.clone(), work: Some(Box::pin(work)) }
    }

    /// From here on nothing of it runs, while time goes on.
    pub fn stop(&self) {
        self.life().stopped = true;
    }

    /// It goes on where it stood.
    pub fn resume(&self) {
        let mut life = self.life();
        life.stopped = false;
        let waiting = std::mem::take(&mut life.waiting);
        drop(life);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Nothing of it ever runs again.
    pub fn kill(&self) {
        let mut life = self.life();
        life.killed = true;
        life.waiting.clear();
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Life> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does this as the process does it.
    fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = PROCESS.replace(Some(self.clone()));
        let result = work();
        PROCESS.set(before);
        result
    }
}

struct Within<T> {
    process: Process,
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T> Future for Within<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut life = self.process.life();
        if life.killed {
            return Poll::Pending;
        }
        if life.stopped {
            life.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        drop(life);
        let process = self.process.clone();
        let work = self.work.as_mut().expect("present until dropped");
        process.enter(|| work.as_mut().poll(context))
    }
}

/// Drops its work as its process does: a process that was killed does nothing any more.
impl<T> Drop for Within<T> {
    fn drop(&mut self) {
        let work = self.work.take();
        self.process.enter(|| drop(work));
    }
}

/// Runs this in the process that puts it onto the runtime.
pub(crate) fn within(work: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
    let process = PROCESS.try_with(|process| process.borrow().clone()).ok().flatten();
    async move {
        match process {
            Some(process) => process.run(work).await,
            None => work.await,
        }
    }
}

pub(crate) fn runtime() -> Option<Handle> {
    // Gone where the thread ends the process.
    RUNTIME.try_with(|runtime| runtime.borrow().clone()).ok().flatten()
}
