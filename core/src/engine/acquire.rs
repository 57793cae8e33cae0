//! One acquisition, from the call to a lease, an error or its withdrawal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::gate::{Entry, LocalWait, Turn};
use super::refusal::{busy_error, cancelled, no_answer};
use super::resource::{Handle, Resource};
use super::tenure::{Granted, Lease, Tenure};
use crate::clock::{self, Instant};
use crate::contract::{AcquireOptions, Attempt, Claim, Contender};
use crate::error::{Error, Kind, Result};
use crate::observe::event::{self, EventKind};
use crate::runtime::cancel::CancelToken;
use crate::runtime::exit::{self, Contending, Entry as Entrance};
use crate::runtime::op::Op;
use crate::runtime::{lock, spawn_tracked};
use crate::timing::Backoff;
use crate::timing::limits::WITHDRAWAL;

/// The time after its deadline in which an acquire may still clean up before its caller gets its answer.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// One acquisition under way.
pub(super) struct Acquisition {
    pub(super) resource: Arc<Resource>,
    pub(super) handle: Handle,
    pub(super) claim: Claim,
    pub(super) cancel: CancelToken,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    pub(super) progress: Arc<Progress>,
    /// Begun by an exit handler, when the process was ending.
    pub(super) late: bool,
}

/// The progress of an acquisition, as far as others need it.
#[derive(Default)]
pub(super) struct Progress {
    /// Fires when the backend keeps an attempt for longer than it was given.
    pub(super) silent: Notify,
    /// True if the backend, or this process, has found the lock busy.
    pub(super) busy: AtomicBool,
    /// The error of the last attempt, which is being repeated.
    pub(super) last_error: Mutex<Option<Error>>,
    /// The error of the acquisition, when only the withdrawal is left to do.
    failure: OnceLock<Error>,
    failed: Notify,
}

impl Progress {
    /// Notes that only the withdrawal is left to do.
    pub(super) fn fail(&self, error: &Error) {
        let _ = self.failure.set(error.clone());
        self.failed.notify_one();
    }

    /// Resolves when only the withdrawal is left to do, to why.
    pub(super) async fn failure(&self) -> Option<Error> {
        self.failed.notified().await;
        self.failure.get().cloned()
    }
}

/// Acquires as the options say.
#[inline]
pub(crate) fn acquire(resource: &Arc<Resource>, handle: &Handle, options: &Arc<AcquireOptions>) -> Op<Lease> {
    match options.retry {
        Some((tries, delay)) => retry(resource, handle, options, tries, delay),
        None => acquire_within(resource, handle, options, options.wait),
    }
}

/// Acquires within this time; `None`: without limit; zero: tries once.
#[inline(always)]
pub(crate) fn acquire_within(
    resource: &Arc<Resource>,
    handle: &Handle,
    options: &Arc<AcquireOptions>,
    wait: Option<Duration>,
) -> Op<Lease> {
    let entrance = exit::entry();
    if entrance == Entrance::Silent {
        return Op::new(CancelToken::default(), std::future::pending());
    }
    begin(resource, handle, options, wait, entrance == Entrance::Late)
}

fn begin(
    resource: &Arc<Resource>,
    handle: &Handle,
    options: &Arc<AcquireOptions>,
    wait: Option<Duration>,
    late: bool,
) -> Op<Lease> {
    let (shared, queue) = (&resource.shared, &resource.queue);
    let claim = Claim::new(shared.number, options.clone(), wait != Some(Duration::ZERO));
    if let Err(error) = handle.check_open(late).and_then(|()| shared.ensure_runtime(options)) {
        return Op::ready(Err(resource.in_context(error, &claim)));
    }
    let mut busy = false;
    if shared.capabilities.local
        && let Some(turn) = queue.try_turn(options.mode)
    {
        match shared.backend.try_now(&claim) {
            Some(Ok(Attempt::Granted { grant, since, ttl })) => {
                event::emit(|| EventKind::Granted { wait: Duration::ZERO }.of(shared.name(), &options.key));
                let lease = Tenure::lease(shared, handle.id, claim, Granted { grant, since, ttl }, turn);
                // Closed meanwhile, when it wasn't there yet to be ended.
                let open = handle.check_open(late);
                let open = open.map_err(|error| error.with_key(options.key.clone()).with_backend(shared.name()));
                return Op::ready(open.map(|()| lease));
            }
            Some(Err(error)) if !error.is_temporary() || !claim.wait => {
                return Op::ready(Err(resource.in_context(error, &claim)));
            }
            _ if !claim.wait => return Op::ready(Err(busy_error(resource, &claim, Duration::ZERO, ""))),
            // A call that nobody has polled keeps nothing: the turn is taken when it is.
            Some(Ok(Attempt::Busy(_))) => busy = true,
            _ => {}
        }
    } else if !claim.wait && !queue.is_ending() && queue.is_busy(options.mode) {
        // Held or waited for in this very process.
        return Op::ready(Err(busy_error(resource, &claim, Duration::ZERO, "")));
    }
    let begun = Instant::now();
    let deadline = wait.map_or(Instant::NEVER, |wait| begun.plus(wait));
    let cancel = CancelToken::default();
    let acquisition = Acquisition {
        resource: resource.clone(),
        handle: handle.clone(),
        claim,
        cancel: cancel.clone(),
        begun,
        deadline,
        progress: Arc::new(Progress { busy: AtomicBool::new(busy), ..Progress::default() }),
        late,
    };
    Op::new(cancel, acquisition.silent_at_exit())
}

/// Tries at most so many times, so far apart, instead of waiting.
fn retry(
    resource: &Arc<Resource>,
    handle: &Handle,
    options: &Arc<AcquireOptions>,
    tries: u32,
    delay: Duration,
) -> Op<Lease> {
    // Asked here, and not where the rest runs.
    let late = exit::entry() == Entrance::Late;
    let once = move |resource: &Arc<Resource>, handle: &Handle, options: &Arc<AcquireOptions>| match late {
        true => begin(resource, handle, options, Some(Duration::ZERO), late),
        false => acquire_within(resource, handle, options, Some(Duration::ZERO)),
    };
    let first = once(resource, handle, options);
    let (resource, handle, options) = (resource.clone(), handle.clone(), options.clone());
    let cancel = CancelToken::default();
    let token = cancel.clone();
    let rest = async move {
        let mut result = follow(first, &token).await;
        for _ in 1..tries {
            match &result {
                Err(error) if error.kind() == Kind::Timeout || error.is_temporary() => {}
                _ => return result,
            }
            tokio::select! {
                biased;
                () = clock::sleep(delay) => {}
                () = token.cancelled(1) => return Err(cancelled(&options)),
            }
            result = follow(once(&resource, &handle, &options), &token).await;
        }
        result
    };
    Op::new(cancel, rest)
}

/// Awaits a call, and cancels it as its caller cancels this one.
async fn follow(mut call: Op<Lease>, cancel: &CancelToken) -> Result<Lease> {
    for times in 1..=2 {
        tokio::select! {
            biased;
            result = &mut call => return result,
            () = cancel.cancelled(times) => call.cancel(),
        }
    }
    call.await
}

impl Acquisition {
    /// Runs the acquisition. Once a silent exit has begun it never answers: the process is about to stop its caller.
    async fn silent_at_exit(self) -> Result<Lease> {
        let late = self.late;
        let result = self.answer().await;
        if !late && exit::ends_in_silence() {
            drop(result);
            return std::future::pending().await;
        }
        result
    }

    /// Runs the acquisition, and answers its caller in time whatever the acquisition is doing: what is unfinished
    /// continues in the background and keeps the turn until it has ended.
    async fn answer(self) -> Result<Lease> {
        let overdue = self.overdue();
        let mut work = Box::pin(self.run());
        let error = tokio::select! {
            biased;
            result = &mut work => return result,
            error = overdue => error,
        };
        spawn_tracked(async move { drop(work.await) });
        Err(error)
    }

    /// Resolves when the caller is to be answered although the acquisition hasn't ended.
    fn overdue(&self) -> impl Future<Output = Error> + Send + use<> {
        let (resource, claim, begun, deadline) = (self.resource.clone(), self.claim.clone(), self.begun, self.deadline);
        let (cancel, progress) = (self.cancel.clone(), self.progress.clone());
        async move {
            let withdrawn = async {
                cancel.cancelled(1).await;
                tokio::select! {
                    biased;
                    () = clock::sleep(WITHDRAWAL) => {}
                    () = cancel.cancelled(2) => {}
                }
            };
            let failed = async {
                let failure = progress.failure().await;
                clock::sleep(GRACE).await;
                failure
            };
            let grace = if claim.wait { GRACE } else { resource.shared.connect_timeout() };
            if mutant!("waits-for-cleanup") {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                biased;
                () = withdrawn => return cancelled(&claim.options),
                () = clock::sleep_until(deadline.plus(grace)) => {}
                failure = failed => return failure.unwrap_or_else(|| cancelled(&claim.options)),
                () = progress.silent.notified() => progress.busy.store(false, Ordering::Relaxed),
            }
            if progress.busy.load(Ordering::Relaxed) {
                busy_error(&resource, &claim, Instant::now() - begun, "")
            } else {
                let last_error = lock(&progress.last_error).take();
                resource.in_context(last_error.unwrap_or_else(no_answer), &claim)
            }
        }
    }

    async fn run(mut self) -> Result<Lease> {
        let resource = self.resource.clone();
        let shared = &resource.shared;
        event::emit(|| EventKind::Waiting.of(shared.name(), &self.claim.options.key));
        loop {
            let turn = match resource.queue.enter(&self.claim, &self.cancel) {
                Entry::Turn(turn) => turn,
                Entry::Wait(wait) => Box::pin(self.turn(wait)).await?,
                Entry::Busy => return Err(busy_error(&resource, &self.claim, Duration::ZERO, "")),
            };
            self.check_open()?;
            turn.contend(&self.claim);
            let _contending = Contending::new();
            let mut contender = shared.backend.clone().contend(self.claim.clone());
            let granted = match self.wait(contender.as_mut()).await {
                Ok(granted) => granted,
                Err(error) => {
                    let error = resource.in_context(error, &self.claim);
                    self.progress.fail(&error);
                    turn.withdraw();
                    if !mutant!("no-withdrawal") {
                        Box::pin(self.withdraw(contender.as_mut())).await;
                    }
                    drop(turn);
                    return Err(error);
                }
            };
            let lease = Tenure::lease(shared, self.handle.id, self.claim.clone(), granted, turn);
            self.check_open()?;
            let waited = self.waited();
            if lease.0.is_held() || mutant!("late-grant-entered") {
                event::emit(|| EventKind::Granted { wait: waited }.of(shared.name(), &self.claim.options.key));
                return Ok(lease);
            }
            // Over before it came: never handed out. Its release keeps the turn, and this caller asks again.
            drop(lease);
            if !self.claim.wait || self.deadline.passed() {
                return Err(busy_error(&resource, &self.claim, waited, ""));
            }
            self.claim = Claim::new(shared.number, self.claim.options.clone(), self.claim.wait);
        }
    }

    fn check_open(&self) -> Result<()> {
        self.handle.check_open(self.late).map_err(|error| self.resource.in_context(error, &self.claim))
    }

    /// Waits for the turn in the gate. A claim that only tries waits for what its own process has ended, and for a
    /// limited time.
    async fn turn(&self, wait: LocalWait<Tenure>) -> Result<Turn<Tenure>> {
        let (resource, claim) = (&self.resource, &self.claim);
        let given_up = async {
            if claim.wait {
                return self.given_up().await;
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled(1) => cancelled(&claim.options),
                () = clock::sleep(WITHDRAWAL) => busy_error(resource, claim, Duration::ZERO, ""),
            }
        };
        if claim.wait {
            self.progress.busy.store(true, Ordering::Relaxed);
        }
        tokio::select! {
            biased;
            turn = wait => turn.ok_or_else(|| match self.cancel.is_cancelled() {
                true => cancelled(&claim.options),
                false => Error::new(Kind::Internal, "the local queue ended"),
            }),
            error = given_up => match error.kind() {
                Kind::Timeout => Err(self.timeout_error().await),
                _ => Err(resource.in_context(error, claim)),
            },
        }
    }

    /// Leaves nothing behind. The turn is kept until the backend has confirmed it, or until whatever is left there has
    /// ended by itself.
    async fn withdraw(&self, contender: &mut dyn Contender) {
        let end = Instant::now().plus(self.claim.options.ttl).plus(self.resource.shared.connect_timeout());
        let mut pauses = Backoff::up_to(Duration::from_secs(1));
        while contender.withdraw().await.is_err() && !end.passed() {
            clock::sleep(pauses.next()).await;
        }
    }
}
