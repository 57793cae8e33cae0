//! Cancelling a call: the caller's wish, and who may express it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::fork::{PerProcess, epoch};

/// Cancels a call from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Canceller(pub(super) CancelToken);

impl Canceller {
    /// As [`Op::cancel`](super::op::Op::cancel).
    pub fn cancel(&self) {
        self.0.cancel_here();
    }
}

/// The caller's wish to withdraw. The call checks it only where it can be interrupted without leaving a trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct CancelToken(Arc<Request>);

#[derive(Debug)]
struct Request {
    epoch: u32,
    count: AtomicU32,
    notify: Notify,
    /// For those who wait in a child of fork: the parent's waiters, and whoever had locked them, are not there.
    inherited: PerProcess<Notify>,
}

impl Default for Request {
    fn default() -> Self {
        let (epoch, count) = (epoch(), AtomicU32::new(0));
        Self { epoch, count, notify: Notify::new(), inherited: PerProcess::new() }
    }
}

impl Request {
    fn notify(&self) -> &Notify {
        if elsewhere(self.epoch) { self.inherited.get(Notify::new) } else { &self.notify }
    }
}

impl CancelToken {
    pub(crate) fn cancel(&self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.notify().notify_waiters();
    }

    /// Fires for a call of this process; one that was made before a fork is the parent's.
    pub(super) fn cancel_here(&self) {
        if !elsewhere(self.0.epoch) {
            self.cancel();
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.times(1)
    }

    fn times(&self, n: u32) -> bool {
        self.0.count.load(Ordering::Acquire) >= n
    }

    /// Resolves when the caller wishes to withdraw; `n` = 2: wishes it for the second time.
    pub(crate) async fn cancelled(&self, n: u32) {
        loop {
            let mut next = std::pin::pin!(self.0.notify().notified());
            next.as_mut().enable();
            if self.times(n) {
                return;
            }
            next.await;
        }
    }
}

/// Returns true if an object of this epoch belongs to another process.
pub(super) fn elsewhere(made: u32) -> bool {
    made != epoch() && !mutant!("process-forked-call-goes-on")
}
