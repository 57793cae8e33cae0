//! Giving a lock back, until the backend has confirmed it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use super::status::{LossReason, ReleaseState, State};
use super::tenure::Tenure;
use crate::clock::{self, Instant};
use crate::contract::Released;
use crate::error::{Error, Result};
use crate::observe::event::EventKind;
use crate::runtime::op::Op;
use crate::runtime::{self, BoxFuture, lock};
use crate::timing::Backoff;

/// The time that a release may take before its caller learns that it isn't confirmed.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// The number of releases of one [`Ending`] that are under way at a time.
const LANES: usize = 128;

/// The end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// It was ours until it was given back.
    Released,
    /// It had been lost before.
    Lost,
}

impl Tenure {
    /// Gives the lock back. Idempotent.
    ///
    /// # Errors
    /// `NotHeld` for a lease of the parent of a fork; `Backend`, temporary, when the backend didn't confirm it in time.
    pub(crate) fn release(self: &Arc<Self>) -> Op<ReleaseOutcome> {
        if self.is_inherited() {
            return Op::ready(Err(self.not_held_error()));
        }
        let mut release = None;
        if self.is_held() && self.let_go_and_release() {
            release = self.start_release();
        } else if self.state() == State::Lost {
            // Its holder has learnt of the loss, so the backend needn't keep it any longer.
            self.release_at_backend();
            return Op::ready(Ok(ReleaseOutcome::Lost));
        }
        match self.status.release() {
            ReleaseState::Open => {
                let tenure = self.clone();
                Op::detached(None, async move {
                    let done = async {
                        match release {
                            Some(release) => release.await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        () = done => tenure.outcome(tenure.status.release()),
                        outcome = Box::pin(tenure.clone().confirmed()) => outcome,
                    }
                })
            }
            state => Op::ready(self.outcome(state)),
        }
    }

    async fn confirmed(self: Arc<Self>) -> Result<ReleaseOutcome> {
        let end = Instant::now().plus(RELEASE_LIMIT);
        loop {
            let mut changed = std::pin::pin!(self.next_change());
            changed.as_mut().enable();
            let state = self.status.release();
            if state != ReleaseState::Open {
                return self.outcome(state);
            }
            if end.passed() {
                self.emit(|| EventKind::Unconfirmed);
                return self.outcome(ReleaseState::Unconfirmed);
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = clock::sleep_until(end) => {}
            }
        }
    }

    fn outcome(&self, state: ReleaseState) -> Result<ReleaseOutcome> {
        match state {
            ReleaseState::Done => Ok(ReleaseOutcome::Released),
            ReleaseState::NotOurs => Ok(ReleaseOutcome::Lost),
            _ => Err(self.in_context(Error::unavailable(format!(
                "the release was not confirmed; the lock ends by itself within its ttl of {:?}",
                self.ttl()
            )))),
        }
    }

    /// Gives the lock back at the backend, once, in the background.
    pub(super) fn release_at_backend(self: &Arc<Self>) {
        // A release that is dropped continues in the background.
        drop(self.begin_release());
    }

    /// Ends a lease that nobody can use any more.
    pub(super) fn release_in_background(self: &Arc<Self>) {
        self.let_go();
        if !mutant!("drop-forgets") {
            self.release_at_backend();
        }
    }

    /// Begins to give the lock back at the backend, once: on this thread where the backend is local, else by whoever
    /// awaits the release, or in the background when nobody does. The turn in the gate is kept until the backend has
    /// confirmed the release or the ttl has passed.
    fn begin_release(self: &Arc<Self>) -> Option<Release> {
        if self.status.begin_release() { self.start_release() } else { None }
    }

    fn start_release(self: &Arc<Self>) -> Option<Release> {
        if let Some(answer) = self.grant.release_now() {
            self.end_release(Some(answer));
            return None;
        }
        if mutant!("turn-before-release") {
            self.turn.pass();
        }
        let tenure = self.clone();
        Some(Release(Some(Box::pin(runtime::tracked(async move { tenure.repeat_release().await })))))
    }

    /// Asks the backend to take the lock back, until it answers or the ttl has passed.
    async fn repeat_release(self: Arc<Self>) {
        // A renewal may be on its way, or an earlier one was for longer.
        let end = Instant::now().plus(self.ttl()).max(self.validity.expires());
        let mut pauses = Backoff::up_to(Duration::from_secs(1));
        let answer = loop {
            let asked = Instant::now();
            let answer = self.grant.release().await;
            self.shared().answered(asked, &answer);
            match answer {
                Ok(answer) => break Some(answer),
                Err(error) if end.passed() || !error.is_temporary() || mutant!("release-once") => break None,
                Err(_) => clock::sleep(pauses.next()).await,
            }
        };
        self.end_release(answer);
    }

    fn end_release(&self, answer: Option<Released>) {
        let state = match answer {
            Some(Released::Yes) => ReleaseState::Done,
            Some(Released::NotOurs) => ReleaseState::NotOurs,
            None => ReleaseState::Unconfirmed,
        };
        // Before anybody can see that the release has ended: a caller that sees it may try the lock again.
        self.turn.pass();
        self.status.end_release(state);
        self.change();
    }
}

/// A release under way: whoever awaits it drives it. Dropped, it continues in the background.
struct Release(Option<BoxFuture<'static, ()>>);

impl Future for Release {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.0 else { return Poll::Ready(()) };
        std::task::ready!(work.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(())
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            runtime::spawn_call(work);
        }
    }
}

/// Leases that are ended together, and not by their holders.
pub(crate) struct Ending(Vec<Arc<Tenure>>);

impl Ending {
    /// Ends them, reports their loss if `notify`, and begins to give them back, which continues by itself. `None`:
    /// nothing is left to be done.
    pub(crate) fn begin(tenures: Vec<Arc<Tenure>>, notify: bool) -> Option<Self> {
        for tenure in &tenures {
            if notify && !mutant!("client-closed-in-silence") {
                tenure.lose(LossReason::Closed);
            } else {
                tenure.let_go();
            }
        }
        // After all losses were reported: others may have at once what is given back.
        let releases: Vec<_> = tenures.iter().filter_map(Tenure::begin_release).collect();
        let lanes = if mutant!("client-releases-one-by-one") { 1 } else { LANES.min(releases.len()) };
        let releases = Arc::new(Mutex::new(releases.into_iter()));
        for _ in 0..lanes {
            let releases = releases.clone();
            runtime::spawn_call(async move {
                let next = || lock(&releases).next();
                while let Some(release) = next() {
                    release.await;
                }
            });
        }
        let is_open = |tenure: &Arc<Tenure>| tenure.status.release() == ReleaseState::Open;
        let open: Vec<_> = tenures.into_iter().filter(is_open).collect();
        (!open.is_empty()).then_some(Self(open))
    }

    /// Waits until all are given back.
    ///
    /// # Errors
    /// `Backend`, temporary, when one of them isn't confirmed in time.
    pub(crate) async fn confirmed(self) -> Result<()> {
        let mut result = Ok(());
        for tenure in self.0 {
            result = result.and(tenure.confirmed().await.map(drop));
        }
        result
    }
}
