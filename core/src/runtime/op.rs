//! A running call: the only seam between the core and the languages. Rust awaits it, blocking callers wait on it,
//! callbacks are called by it.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::background;
use super::cancel::{CancelToken, Canceller, elsewhere};
use super::executor::BoxFuture;
use super::fork::epoch;
use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Result};

/// A running call and its result.
///
/// Await it in any executor, [`wait`](Self::wait) for it on a thread, or have [`on_done`](Self::on_done) called.
///
/// It belongs to the process that made it. In a child of fork it settles as `NotHeld`, whatever became of it;
/// cancelling or dropping it there does nothing.
///
/// # Cancel safety
/// Dropping it cancels the call; what the call had obtained is given back in the background.
#[must_use = "dropping an Op cancels the call"]
pub struct Op<T: Send + 'static> {
    state: Stage<T>,
    /// `None`: settled from the start, nothing to cancel.
    cancel: Option<CancelToken>,
    /// True if a call goes on to the end of its withdrawal when its caller leaves it. A mere wait has nothing to
    /// finish.
    finishes: bool,
    epoch: u32,
}

enum Stage<T> {
    /// Settled, or a result nobody has taken yet.
    Done(Result<T>),
    /// Driven by whoever waits; `true` once it has been polled.
    Lazy(BoxFuture<'static, Result<T>>, bool),
    /// Driven by the runtime.
    Spawned(oneshot::Receiver<Result<T>>),
    /// The result was taken.
    Consumed,
}

impl<T: Send + 'static> Op<T> {
    /// A call that is already settled.
    pub fn ready(result: Result<T>) -> Self {
        Self { state: Stage::Done(result), cancel: None, finishes: false, epoch: epoch() }
    }

    /// A call that this future makes. The future watches the [`CancelToken`] itself, and finishes soon after it fires.
    pub(crate) fn new(cancel: CancelToken, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let state = Stage::Lazy(Box::pin(catch_panic(work)), false);
        Self { state, cancel: Some(cancel), finishes: true, epoch: epoch() }
    }

    /// A mere wait: it changes nothing, so whoever leaves it leaves nothing behind.
    pub(crate) fn watch(work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        if mutant!("process-dropped-wait-goes-on") {
            return Self::detached(None, work);
        }
        let cancel = CancelToken::default();
        let token = cancel.clone();
        let work = async move {
            tokio::select! {
                biased;
                result = work => result,
                () = token.cancelled(1) => Err(Error::new(Kind::Cancelled, "the wait was cancelled")),
            }
        };
        let mut op = Self::new(cancel, work);
        op.finishes = false;
        op
    }

    /// A call that goes on by itself when its caller doesn't wait any longer, and whose caller is told within the
    /// limit.
    pub(crate) fn detached(limit: Option<Duration>, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let cancel = CancelToken::default();
        let token = cancel.clone();
        Self::new(cancel, async move {
            let mut work = Box::pin(work);
            let until = limit.map_or(Instant::NEVER, |limit| Instant::now().plus(limit));
            let error = tokio::select! {
                biased;
                result = &mut work => return result,
                () = token.cancelled(1) => {
                    Error::new(Kind::Cancelled, "the call was cancelled; what it had begun goes on")
                }
                () = clock::sleep_until(until) => Error::unavailable(format!(
                    "the backend gave no answer within {:?}; try again, or raise connect_timeout",
                    limit.unwrap_or_default()
                )),
            };
            background::spawn_call(async move { drop(work.await) });
            Err(error)
        })
    }

    /// The result, if it is there already.
    pub fn settled(&mut self) -> Option<Result<T>> {
        if let Some(error) = self.disown() {
            return Some(Err(error));
        }
        match &mut self.state {
            Stage::Done(_) => self.take(),
            Stage::Spawned(result) => {
                let result = result.try_recv().ok()?;
                self.state = Stage::Consumed;
                Some(result)
            }
            Stage::Lazy(..) | Stage::Consumed => None,
        }
    }

    /// The error, if it has failed already; the call stays as it is otherwise.
    pub fn settled_error(&mut self) -> Option<Error> {
        if let Some(error) = self.disown() {
            return Some(error);
        }
        match &self.state {
            Stage::Done(Err(_)) => self.take()?.err(),
            _ => None,
        }
    }

    /// Waits on this thread.
    ///
    /// # Errors
    /// Those of the call. `Invalid` on a thread that runs the library's own work at this moment, as where
    /// [`on_done`](Self::on_done) calls: such a wait would never end. `Backend`, temporary, when the runtime can't be
    /// started for want of a thread or descriptor.
    pub fn wait(mut self) -> Result<T> {
        self.wait_for(Duration::MAX).unwrap_or_else(|| Err(consumed()))
    }

    /// Waits on this thread for a while; zero: only looks. `None`: not yet; call again, or drop it to cancel.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for(&mut self, slice: Duration) -> Option<Result<T>> {
        if let Some(error) = self.disown() {
            return Some(Err(error));
        }
        if matches!(self.state, Stage::Done(_)) {
            return self.take();
        }
        if background::drives() {
            return Some(Err(Error::invalid(
                "a wait on a thread that runs dlock's own work would never end: wait on another one, as by runtime::pool",
            )));
        }
        // Inside somebody's asynchronous runtime. And at the end of a thread or of the process, in an atexit handler,
        // when what tokio keeps of the thread is gone: then another thread drives.
        if tokio::runtime::Handle::try_current().map_or_else(|error| error.is_thread_local_destroyed(), |_| true) {
            return self.park(slice);
        }
        if slice.is_zero() {
            return background::poll_once(self.drive()).unwrap_or_else(|error| Some(Err(error)));
        }
        let limited = async {
            if slice == Duration::MAX {
                Some(self.drive().await)
            } else {
                tokio::time::timeout(slice, self.drive()).await.ok()
            }
        };
        // A waiting thread drives its own call: no hop to another one.
        background::block_on(limited).unwrap_or_else(|error| Some(Err(error)))
    }

    /// Waits as a plain thread, inside somebody's asynchronous runtime.
    fn park(&mut self, slice: Duration) -> Option<Result<T>> {
        use std::sync::mpsc::{RecvTimeoutError, sync_channel};
        if let Err(error) = self.spawn() {
            return Some(Err(error));
        }
        let (wake, woken) = sync_channel::<()>(1);
        let waker = Arc::new(Unpark(wake)).into();
        let mut context = Context::from_waker(&waker);
        let end = (slice != Duration::MAX).then(|| Instant::now().plus(slice));
        loop {
            if let Poll::Ready(result) = Pin::new(&mut *self).poll(&mut context) {
                return Some(result);
            }
            match end {
                None => drop(woken.recv()),
                Some(end) => {
                    if woken.recv_timeout(end.left()) == Err(RecvTimeoutError::Timeout) {
                        return None;
                    }
                }
            }
        }
    }

    /// Calls `f` with the result, on a thread of the runtime, or on this one where it is settled: `f` hands the
    /// result over and returns. Code of the user's belongs on [`callbacks::pool`](crate::callbacks::pool).
    pub fn on_done(mut self, f: impl FnOnce(Result<T>) + Send + 'static) -> Canceller {
        let canceller = self.canceller();
        if let Some(error) = self.disown() {
            f(Err(error));
            return canceller;
        }
        if matches!(self.state, Stage::Lazy(..))
            && let Err(error) = background::started()
        {
            f(Err(error));
            return canceller;
        }
        match std::mem::replace(&mut self.state, Stage::Consumed) {
            Stage::Done(result) => f(result),
            Stage::Lazy(work, _) => background::spawn_call(async move { f(work.await) }),
            Stage::Spawned(result) => {
                background::spawn_call(async move { f(result.await.unwrap_or_else(|_| Err(consumed()))) });
            }
            Stage::Consumed => f(Err(consumed())),
        }
        canceller
    }

    /// The same call with another result.
    pub fn map<U: Send + 'static>(self, f: impl FnOnce(T) -> Result<U> + Send + 'static) -> Op<U> {
        self.recover(|result| result.and_then(f))
    }

    /// The same call with another result, or another error.
    pub fn recover<U: Send + 'static>(mut self, f: impl FnOnce(Result<T>) -> Result<U> + Send + 'static) -> Op<U> {
        if let Some(error) = self.disown() {
            return Op::ready(f(Err(error)));
        }
        match self.take() {
            Some(result) => Op::ready(f(result)),
            None => {
                let mut whole = self;
                let (cancel, finishes) = (whole.cancel.clone().unwrap_or_default(), whole.finishes);
                let mut op = Op::new(cancel, async move { f(whole.drive().await) });
                op.finishes = finishes;
                op
            }
        }
    }

    /// Asks the call to end. It settles as cancelled within 250 ms; a second call makes it settle at once.
    pub fn cancel(&self) {
        if let Some(cancel) = &self.cancel {
            cancel.cancel_here();
        }
    }

    /// By which others can cancel it.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.cancel.clone().unwrap_or_default())
    }

    /// In a child of fork: why there is nothing to be had from it. What it is made of leads to what may be locked for
    /// ever, and to what the parent does: it is leaked.
    fn disown(&mut self) -> Option<Error> {
        if !elsewhere(self.epoch) {
            return None;
        }
        std::mem::forget(std::mem::replace(&mut self.state, Stage::Consumed));
        Some(Error::new(
            Kind::NotHeld,
            "the call was begun before this process was forked, and belongs to the parent: make it again here",
        ))
    }

    fn take(&mut self) -> Option<Result<T>> {
        if !matches!(self.state, Stage::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut self.state, Stage::Consumed) {
            Stage::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Puts the call onto the runtime.
    fn spawn(&mut self) -> Result<()> {
        if !matches!(self.state, Stage::Lazy(..)) {
            return Ok(());
        }
        background::started()?;
        if let Stage::Lazy(work, _) = std::mem::replace(&mut self.state, Stage::Consumed) {
            let (tell, told) = oneshot::channel();
            background::spawn_call(async move { drop(tell.send(work.await)) });
            self.state = Stage::Spawned(told);
        }
        Ok(())
    }

    /// Polls the call where the caller is, without putting it onto the runtime.
    async fn drive(&mut self) -> Result<T> {
        poll_fn(|cx| self.poll_here(cx)).await
    }

    fn poll_here(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let result = match &mut self.state {
            Stage::Done(_) => return Poll::Ready(self.take().unwrap_or_else(|| Err(consumed()))),
            Stage::Lazy(work, polled) => {
                *polled = true;
                std::task::ready!(work.as_mut().poll(cx))
            }
            Stage::Spawned(result) => std::task::ready!(Pin::new(result).poll(cx)).unwrap_or_else(|_| Err(consumed())),
            Stage::Consumed => Err(consumed()),
        };
        self.state = Stage::Consumed;
        Poll::Ready(result)
    }
}

/// Nothing in it is ever pinned in place.
impl<T: Send + 'static> Unpin for Op<T> {}

/// Any executor may poll it: the work itself runs on our runtime.
impl<T: Send + 'static> Future for Op<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(error) = self.disown() {
            return Poll::Ready(Err(error));
        }
        if let Err(error) = self.spawn() {
            self.state = Stage::Consumed;
            return Poll::Ready(Err(error));
        }
        self.poll_here(cx)
    }
}

impl<T: Send + 'static> Drop for Op<T> {
    fn drop(&mut self) {
        if self.disown().is_some() {
            return;
        }
        match std::mem::replace(&mut self.state, Stage::Consumed) {
            // It may be in a queue or hold something: it gets to the end of its withdrawal.
            Stage::Lazy(work, true) if self.finishes => {
                self.cancel();
                background::spawn_call(async move { drop(work.await) });
            }
            Stage::Spawned(_) => self.cancel(),
            _ => {}
        }
    }
}

/// A panic in a call is an error of that call, and nothing else.
async fn catch_panic<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(Error::panicked(&*panic))),
    })
    .await
}

fn consumed() -> Error {
    Error::new(Kind::Internal, "the call's result was taken before")
}

struct Unpark(std::sync::mpsc::SyncSender<()>);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        let _ = self.0.try_send(());
    }
}
