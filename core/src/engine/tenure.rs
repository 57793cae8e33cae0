//! One successful acquisition: what proves it, what became of it, and who learns of its end.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::gate::{Holder, Turn};
use super::shared::Shared;
use super::status::{LossReason, ReleaseState, State, Status};
use super::validity::{Policy, Validity};
use crate::clock::{self, Instant};
use crate::contract::{Claim, Grant};
use crate::error::{Error, Kind};
use crate::observe::callbacks::guarded;
use crate::observe::event::{self, EventKind};
use crate::runtime::{epoch, lock};

/// A lock that is held, until it is released, lost, or dropped, which releases it in the background.
///
/// May be moved to and used from any thread. Ownership belongs to this value, not to a thread.
pub struct Lease(pub(crate) Arc<Tenure>);

type Hook = Box<dyn FnOnce() + Send>;

/// Those that learn of a change of a lease.
#[derive(Default)]
struct Watchers {
    hooks: Mutex<Vec<Hook>>,
    changed: Notify,
}

/// One successful acquisition, which a [`Lease`] is a view of.
pub(crate) struct Tenure {
    pub(super) epoch: u32,
    /// The client's handle that made it.
    pub(crate) handle: u64,
    pub(crate) claim: Claim,
    pub(crate) grant: Arc<dyn Grant>,
    /// The time at which the core saw the grant: its age and its longest hold count from then.
    granted: Instant,
    pub(crate) validity: Validity,
    pub(super) status: Status,
    pub(super) turn: Turn<Self>,
    /// Set once anybody asks to learn of a change: most leases end with nobody watching.
    watched: AtomicBool,
    watchers: OnceLock<Box<Watchers>>,
    /// Free for a binding's use.
    pub(crate) user_data: AtomicU64,
}

/// The grant of a backend.
pub(crate) struct Granted {
    pub(crate) grant: Arc<dyn Grant>,
    pub(crate) since: Instant,
    pub(crate) ttl: Duration,
}

impl Tenure {
    /// Makes the lease, with the turn in the gate, from what the backend granted.
    pub(crate) fn lease(shared: &Arc<Shared>, handle: u64, claim: Claim, granted: Granted, turn: Turn<Self>) -> Lease {
        let Granted { grant, since, ttl } = granted;
        // A local backend grants at once. Of another one `since` may lie long before the grant: the request is of a
        // session, or of a place in a queue.
        let granted = if shared.capabilities.local { since } else { Instant::now() };
        let since = shared.not_in_the_future(since, granted);
        let policy = Policy {
            unexpiring: shared.is_unexpiring(&claim.options),
            renewed: shared.is_renewed(&claim.options),
            max_hold: claim.options.max_hold,
        };
        let tenure = Arc::new(Self {
            epoch: shared.epoch,
            handle,
            granted,
            validity: Validity::new(&policy, granted, since, ttl),
            claim,
            grant,
            status: Status::held(),
            turn,
            watched: AtomicBool::new(false),
            watchers: OnceLock::new(),
            user_data: AtomicU64::new(0),
        });
        if tenure.turn.hold(&tenure) {
            tenure.suspect();
        }
        tenure.schedule();
        Lease(tenure)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.turn.queue().gate().shared
    }

    /// The fencing token.
    pub(crate) fn fence(&self) -> Option<u64> {
        self.grant.fences().map(|fences| fences.start)
    }

    /// The user's key.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.claim.options.key
    }

    pub(crate) fn age(&self) -> Duration {
        Instant::now() - self.granted
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.validity.ttl()
    }

    /// Returns true if it was made before this process was forked: it is the parent's.
    pub(crate) fn is_inherited(&self) -> bool {
        self.epoch != epoch()
    }

    pub(crate) fn state(&self) -> State {
        self.status.state()
    }

    /// Returns true if the lease counts, computed from the clock at the call.
    pub(crate) fn is_held(&self) -> bool {
        if self.is_inherited() || self.state() != State::Held {
            return false;
        }
        if self.validity.until().passed() && !mutant!("never-expires") {
            let held_too_long = self.validity.is_held_too_long();
            self.lose(if held_too_long { LossReason::HeldTooLong } else { LossReason::Expired });
            return false;
        }
        true
    }

    pub(crate) fn is_lost(&self) -> bool {
        !self.is_held() && self.state() == State::Lost
    }

    /// The error of whoever counts on a lease that isn't held.
    pub(crate) fn not_held_error(&self) -> Error {
        let error = if self.is_inherited() {
            Error::new(
                Kind::NotHeld,
                "the lease was made before a fork and belongs to the parent; acquire the lock here",
            )
        } else if self.state() == State::Released {
            Error::released()
        } else {
            return self.loss();
        };
        self.in_context(error)
    }

    /// The error of a loss, and its reason.
    pub(crate) fn loss(&self) -> Error {
        let text = match self.status.reason() {
            LossReason::Taken => "the lock was lost: the backend says that it is no longer ours",
            LossReason::HeldTooLong => "the lock was lost: it was held for longer than max_hold",
            LossReason::Closed => "the lock was lost: the client that it came from was closed",
            LossReason::Unknown | LossReason::Expired => "the lock was lost: it was not renewed before it ended",
        };
        self.in_context(Error::new(Kind::Lost, text))
    }

    /// The error with this lease's key and backend.
    pub(super) fn in_context(&self, error: Error) -> Error {
        error.with_key(self.key().clone()).with_backend(self.shared().name())
    }

    pub(super) fn emit(&self, kind: impl FnOnce() -> EventKind) {
        event::emit(|| kind().of(self.shared().name(), self.key()));
    }

    /// `Held` → `Lost`, once, and reported to everybody.
    pub(crate) fn lose(&self, reason: LossReason) {
        if !self.status.lose(reason) {
            return;
        }
        self.emit(|| EventKind::Lost { held: self.age() });
        self.change();
        for hook in self.take_hooks() {
            guarded(self.shared().name(), self.key(), hook);
        }
    }

    /// `Held` → `Released`, once. True: this call did it.
    pub(crate) fn let_go(&self) -> bool {
        let let_go = self.status.let_go();
        if let_go {
            self.after_let_go();
        }
        let_go
    }

    /// As [`let_go`](Self::let_go), and begins the release at the backend, which is the caller's from then on.
    pub(super) fn let_go_and_release(&self) -> bool {
        let let_go = self.status.let_go_and_release();
        if let_go {
            self.after_let_go();
        }
        let_go
    }

    fn after_let_go(&self) {
        self.emit(|| EventKind::Released { held: self.age() });
        self.change();
        drop(self.take_hooks());
    }

    /// Wakes all that wait for a change.
    #[inline]
    pub(super) fn change(&self) {
        if self.watched.load(Ordering::SeqCst) {
            self.watch().changed.notify_waiters();
        }
    }

    /// Takes the hooks. They belong to the call that ended the hold.
    #[inline]
    fn take_hooks(&self) -> Vec<Hook> {
        if self.watched.load(Ordering::SeqCst) {
            return std::mem::take(&mut *lock(&self.watch().hooks));
        }
        Vec::new()
    }

    /// The watchers. What is looked at after this call, and changes later, is reported to those that are added now.
    fn watch(&self) -> &Watchers {
        let watchers = self.watchers.get_or_init(Box::default);
        self.watched.store(true, Ordering::SeqCst);
        watchers
    }

    /// The next change. What is looked at after this call and before awaiting it is not missed.
    pub(super) fn next_change(&self) -> Notified<'_> {
        self.watch().changed.notified()
    }

    /// Waits for the end: true when it was lost, false when it was released.
    pub(crate) async fn lost(&self) -> bool {
        if self.is_inherited() {
            // A thread that isn't here may have locked what follows for ever; and nothing loses this copy any more.
            return true;
        }
        loop {
            let mut changed = std::pin::pin!(self.next_change());
            changed.as_mut().enable();
            if self.state() == State::Released {
                return false;
            }
            if !self.is_held() {
                return true;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = clock::sleep_until(self.validity.until()) => {}
            }
        }
    }

    /// Calls `f` once when the lease is lost, at once if it was, on the thread that finds it lost.
    pub(crate) fn on_lost(&self, f: impl FnOnce() + Send + 'static) {
        if self.is_inherited() {
            // As in `lost`.
            return;
        }
        let watchers = self.watch();
        let call = |f| guarded(self.shared().name(), self.key(), f);
        if self.is_lost() {
            return call(f);
        }
        let mut hooks = lock(&watchers.hooks);
        match self.state() {
            State::Held => hooks.push(Box::new(f)),
            State::Released => {}
            State::Lost => {
                drop(hooks);
                call(f);
            }
        }
    }
}

impl Holder for Tenure {
    fn key(&self) -> &Arc<str> {
        &self.claim.options.key
    }

    fn is_being_released(&self) -> bool {
        self.status.is_releasing() && self.status.release() == ReleaseState::Open
    }
}

/// Releases in the background. Does nothing at all in a child of fork: the lock is the parent's.
impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.is_inherited() {
            // Not even the parent's counters are touched: what they lead to may be locked for ever.
            std::mem::forget(self.0.clone());
            return;
        }
        self.0.release_in_background();
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("claim", &self.claim).finish_non_exhaustive()
    }
}
