//! A running call: the only seam between the core and the languages. Rust awaits it, blocking callers wait on it,
//! callbacks are called by it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::backend::BoxFuture;
use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Result};
use crate::runtime;

/// A running call and its result.
///
/// Await it in any executor, [`wait`](Self::wait) for it on a thread, or have [`on_done`](Self::on_done) called.
///
/// # Cancel safety
/// Dropping it cancels the call; what the call had obtained is given back in the background.
#[must_use = "dropping an Op cancels the call"]
pub struct Op<T: Send + 'static> {
    state: Stage<T>,
    /// `None`: settled from the start, nothing to cancel.
    cancel: Option<Cancel>,
}

enum Stage<T> {
    /// Settled, or a result nobody has taken yet.
    Done(Result<T>),
    /// Driven by whoever waits; `true` once it has been polled.
    Cold(BoxFuture<'static, Result<T>>, bool),
    /// Driven by the runtime.
    Hot(oneshot::Receiver<Result<T>>),
    /// The result was taken.
    Spent,
}

impl<T: Send + 'static> Op<T> {
    /// A call that is already settled.
    pub fn ready(result: Result<T>) -> Self {
        Self { state: Stage::Done(result), cancel: None }
    }

    /// A call that this future makes. The future watches the [`Cancel`] itself, and finishes soon after it fires.
    pub(crate) fn new(cancel: Cancel, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self { state: Stage::Cold(Box::pin(caught(work)), false), cancel: Some(cancel) }
    }

    /// A call that goes on by itself when its caller doesn't wait any longer, and whose caller is told within the limit.
    pub(crate) fn going(limit: Option<Duration>, work: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let cancel = Cancel::default();
        let wish = cancel.clone();
        Self::new(cancel, async move {
            let mut work = Box::pin(work);
            let until = limit.map_or(Instant::NEVER, |limit| Instant::now().plus(limit));
            let error = tokio::select! {
                biased;
                result = &mut work => return result,
                () = wish.wished(1) => {
                    Error::new(Kind::Cancelled, "the call was cancelled; what it had begun goes on")
                }
                () = clock::sleep_until(until) => Error::unavailable(format!(
                    "the backend gave no answer within {:?}; try again, or raise connect_timeout",
                    limit.unwrap_or_default()
                )),
            };
            runtime::spawn_call(async move { drop(work.await) });
            Err(error)
        })
    }

    /// The result, if it is there already.
    pub fn settled(&mut self) -> Option<Result<T>> {
        match &mut self.state {
            Stage::Done(_) => self.take(),
            Stage::Hot(result) => {
                let result = result.try_recv().ok()?;
                self.state = Stage::Spent;
                Some(result)
            }
            Stage::Cold(..) | Stage::Spent => None,
        }
    }

    /// The error, if it has failed already; the call stays as it is otherwise.
    pub fn settled_error(&mut self) -> Option<Error> {
        match &self.state {
            Stage::Done(Err(_)) => self.take()?.err(),
            _ => None,
        }
    }

    /// Waits on this thread.
    ///
    /// # Errors
    /// Those of the call.
    pub fn wait(mut self) -> Result<T> {
        self.wait_for(Duration::MAX).unwrap_or_else(|| Err(spent()))
    }

    /// Waits on this thread for a while. `None`: not yet; call again, or drop it to cancel.
    pub fn wait_for(&mut self, slice: Duration) -> Option<Result<T>> {
        if matches!(self.state, Stage::Done(_)) {
            return self.take();
        }
        if tokio::runtime::Handle::try_current().is_ok() {
            return self.park(slice);
        }
        let limited = async {
            if slice == Duration::MAX {
                Some(self.drive().await)
            } else {
                tokio::time::timeout(slice, self.drive()).await.ok()
            }
        };
        // A waiting thread drives its own call: no hop to another one.
        runtime::block_on(limited)
    }

    /// Waits as a plain thread, inside somebody's asynchronous runtime.
    fn park(&mut self, slice: Duration) -> Option<Result<T>> {
        use std::sync::mpsc::{RecvTimeoutError, sync_channel};
        self.heat();
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

    /// Has `f` called with the result, on a thread of the runtime: `f` hands the result over and returns. Code of the
    /// user's belongs on [`runtime::pool`].
    pub fn on_done(mut self, f: impl FnOnce(Result<T>) + Send + 'static) -> Canceller {
        let canceller = self.canceller();
        match std::mem::replace(&mut self.state, Stage::Spent) {
            Stage::Done(result) => f(result),
            Stage::Cold(work, _) => runtime::spawn_call(async move { f(work.await) }),
            Stage::Hot(result) => runtime::spawn_call(async move { f(result.await.unwrap_or_else(|_| Err(spent()))) }),
            Stage::Spent => f(Err(spent())),
        }
        canceller
    }

    /// The same call with another result.
    pub fn map<U: Send + 'static>(self, f: impl FnOnce(T) -> Result<U> + Send + 'static) -> Op<U> {
        self.recover(|result| result.and_then(f))
    }

    /// The same call with another result, or another error.
    pub fn recover<U: Send + 'static>(mut self, f: impl FnOnce(Result<T>) -> Result<U> + Send + 'static) -> Op<U> {
        match self.take() {
            Some(result) => Op::ready(f(result)),
            None => {
                let mut whole = self;
                let cancel = whole.cancel.clone().unwrap_or_default();
                Op::new(cancel, async move { f(whole.drive().await) })
            }
        }
    }

    /// Asks the call to end. It settles as cancelled within 250 ms; a second call makes it settle at once.
    pub fn cancel(&self) {
        if let Some(cancel) = &self.cancel {
            cancel.fire();
        }
    }

    /// By which others can cancel it.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.cancel.clone().unwrap_or_default())
    }

    fn take(&mut self) -> Option<Result<T>> {
        if !matches!(self.state, Stage::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut self.state, Stage::Spent) {
            Stage::Done(result) => Some(result),
            _ => None,
        }
    }

    /// Puts the call onto the runtime.
    fn heat(&mut self) {
        if !matches!(self.state, Stage::Cold(..)) {
            return;
        }
        if let Stage::Cold(work, _) = std::mem::replace(&mut self.state, Stage::Spent) {
            let (tell, told) = oneshot::channel();
            runtime::spawn_call(async move { drop(tell.send(work.await)) });
            self.state = Stage::Hot(told);
        }
    }

    /// Polls the call where the caller is, without putting it onto the runtime.
    async fn drive(&mut self) -> Result<T> {
        poll_fn(|cx| self.poll_here(cx)).await
    }

    fn poll_here(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let result = match &mut self.state {
            Stage::Done(_) => return Poll::Ready(self.take().unwrap_or_else(|| Err(spent()))),
            Stage::Cold(work, polled) => {
                *polled = true;
                std::task::ready!(work.as_mut().poll(cx))
            }
            Stage::Hot(result) => std::task::ready!(Pin::new(result).poll(cx)).unwrap_or_else(|_| Err(spent())),
            Stage::Spent => Err(spent()),
        };
        self.state = Stage::Spent;
        Poll::Ready(result)
    }
}

/// Nothing in it is ever pinned in place.
impl<T: Send + 'static> Unpin for Op<T> {}

/// Any executor may poll it: the work itself runs on our runtime.
impl<T: Send + 'static> Future for Op<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.heat();
        self.poll_here(cx)
    }
}

impl<T: Send + 'static> Drop for Op<T> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, Stage::Spent) {
            // It may be in a queue or hold something: it gets to the end of its withdrawal.
            Stage::Cold(work, true) => {
                self.cancel();
                runtime::spawn_call(async move { drop(work.await) });
            }
            Stage::Hot(_) => self.cancel(),
            _ => {}
        }
    }
}

/// Cancels a call from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Cancel);

impl Canceller {
    /// As [`Op::cancel`].
    pub fn cancel(&self) {
        self.0.fire();
    }
}

/// The caller's wish to withdraw. The call looks at it only where it can be interrupted without leaving a trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<Wish>);

#[derive(Debug, Default)]
struct Wish {
    count: AtomicU32,
    notify: Notify,
}

impl Cancel {
    pub(crate) fn fire(&self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.notify.notify_waiters();
    }

    pub(crate) fn fired(&self) -> bool {
        self.times(1)
    }

    fn times(&self, n: u32) -> bool {
        self.0.count.load(Ordering::Acquire) >= n
    }

    /// Resolves when the caller wishes to withdraw; `n` = 2: wishes it for the second time.
    pub(crate) async fn wished(&self, n: u32) {
        loop {
            let mut next = std::pin::pin!(self.0.notify.notified());
            next.as_mut().enable();
            if self.times(n) {
                return;
            }
            next.await;
        }
    }
}

/// A panic in a call is an error of that call, and nothing else.
async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(Error::panicked(&*panic))),
    })
    .await
}

fn spent() -> Error {
    Error::new(Kind::Internal, "the call's result was taken before, or its process forked while it ran")
}

struct Unpark(std::sync::mpsc::SyncSender<()>);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        let _ = self.0.try_send(());
    }
}
