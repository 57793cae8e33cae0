//! The calls of a lease.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::options;
use crate::clock::{self, Instant};
use crate::contract::Mode;
use crate::engine::release::ReleaseOutcome;
use crate::engine::status::State;
use crate::engine::tenure::Lease;
use crate::error::{Error, Result, show};
use crate::observe::callbacks;
use crate::runtime::op::Op;

impl Lease {
    /// The user's key.
    pub fn key(&self) -> &str {
        self.0.key()
    }

    /// The text that proves ownership: the user's own, or one unique to this acquisition.
    pub fn token(&self) -> String {
        self.0.claim.token()
    }

    /// The fencing token: greater for every later grant of the key. `None` where the backend has none.
    pub fn fence(&self) -> Option<u64> {
        self.0.fence()
    }

    /// Returns how it is held: exclusive, shared, or by permits.
    pub fn mode(&self) -> Mode {
        self.0.claim.options.mode
    }

    /// The slot of a lease of one permit: a number below the semaphore's limit that no other holder has at the same
    /// time. `None` for a lock of another mode, and for more permits than one.
    pub fn slot(&self) -> Option<u32> {
        match self.slots() {
            [slot] => Some(*slot),
            _ => None,
        }
    }

    /// The slots of all permits of the lease, in rising order.
    pub fn slots(&self) -> &[u32] {
        self.0.grant.slots()
    }

    /// The ttl that was granted.
    pub fn ttl(&self) -> Duration {
        self.0.ttl()
    }

    /// Returns true if it counts: computed from the clock at the call. Always false in a child of fork.
    pub fn is_held(&self) -> bool {
        self.0.is_held()
    }

    /// Held, lost or released, as told so far.
    pub fn state(&self) -> State {
        self.0.state()
    }

    /// Until when it counts with no further renewal; [`Instant::NEVER`] where the process itself is the lease.
    pub fn valid_until(&self) -> Instant {
        self.0.validity.until()
    }

    /// Returns how long it still counts with no further renewal: zero when not held, [`Duration::MAX`] for no limit.
    pub fn valid_for(&self) -> Duration {
        if self.is_held() { self.valid_until().left() } else { Duration::ZERO }
    }

    /// Makes sure that the lock is still ours.
    ///
    /// # Errors
    /// `Lost` when it isn't or can't be proven to be; `NotHeld` when it was released or belongs to the parent of a
    /// fork.
    pub fn check(&self) -> Result<()> {
        if self.is_held() { Ok(()) } else { Err(self.0.not_held_error()) }
    }

    /// The error that tells of the loss of this lease, and why it was lost.
    pub fn loss(&self) -> Error {
        self.0.loss()
    }

    /// Waits for the end: true when it was lost, false when it was released.
    ///
    /// # Cancel safety
    /// Dropping the call changes nothing.
    pub fn lost(&self) -> Op<bool> {
        let tenure = self.0.clone();
        Op::watch(async move { Ok(tenure.lost().await) })
    }

    /// As [`lost`](Self::lost), for a limited time: false when it came first.
    pub fn lost_within(&self, limit: Option<Duration>) -> Op<bool> {
        let tenure = self.0.clone();
        let Some(limit) = limit else { return self.lost() };
        if tenure.is_lost() {
            return Op::ready(Ok(true));
        }
        Op::watch(async move {
            tokio::select! {
                biased;
                lost = tenure.lost() => Ok(lost),
                () = clock::sleep(limit) => Ok(false),
            }
        })
    }

    /// Calls `f` once when the lease is lost, at once if it was: on a thread of [`callbacks::pool`], where it may take
    /// its time and wait for calls. A panic is caught, and told as an event. Not called when the lease is released.
    pub fn on_lost(&self, f: impl FnOnce() + Send + 'static) {
        if mutant!("process-hooks-where-they-are") {
            return self.on_lost_here(f);
        }
        let (backend, key) = (self.0.shared().name(), self.0.key().clone());
        self.on_lost_here(move || callbacks::pool_for(backend, key, f));
    }

    /// As [`on_lost`](Self::on_lost), on the thread that finds it lost, which may be one that renews other leases, or
    /// this one: `f` hands the news over and returns. For bindings.
    pub fn on_lost_here(&self, f: impl FnOnce() + Send + 'static) {
        self.0.on_lost(f);
    }

    /// Renews by hand, with a new ttl if one is given.
    ///
    /// # Errors
    /// `Lost`, `NotHeld`, `Invalid` for a ttl the backend can't keep, `Backend` when it didn't answer: then the lease
    /// goes on counting until [`valid_until`](Self::valid_until).
    pub fn renew(&self, ttl: Option<Duration>) -> Op<()> {
        let tenure = self.0.clone();
        let shared = tenure.shared().clone();
        let ttl = ttl.unwrap_or_else(|| tenure.ttl());
        let ready = options::check_ttl(ttl, shared.name(), &shared.capabilities).and_then(|()| self.check());
        if let Err(error) = ready {
            return Op::ready(Err(error.with_key(tenure.key().clone())));
        }
        Op::detached(Some(shared.connect_timeout()), async move {
            let (due, asked) = ([tenure.due(Some(ttl))], Instant::now());
            let answer = shared.backend.renew(&due).await.pop();
            let answer = answer.unwrap_or_else(|| Err(Error::unavailable("the backend gave no answer")));
            shared.answered(asked, &answer);
            let renewed = tenure.renewed(answer, true);
            tenure.schedule();
            renewed
        })
    }

    /// Gives the lock back. Idempotent; never touches a lock that is not ours.
    ///
    /// # Errors
    /// `NotHeld` for a lease made before a fork; `Backend`, temporary, when the backend didn't confirm within 5 s: the
    /// lease is over for this process all the same, and the release goes on in the background until the ttl has passed.
    ///
    /// # Cancel safety
    /// Once it has been polled, or dropped, it goes on by itself; dropping the call only stops waiting.
    pub fn release(&self) -> Op<ReleaseOutcome> {
        self.0.release()
    }

    /// A number a binding keeps with the lease.
    pub fn set_user_data(&self, data: u64) {
        self.0.user_data.store(data, Ordering::Release);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Lease");
        text.field("key", &show(self.key())).field("state", &self.state()).field("fence", &self.fence()).finish()
    }
}
