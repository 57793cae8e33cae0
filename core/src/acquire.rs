//! The way to a lease, and the only wait loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::backend::{Attempt, Contender, Holder, Wake};
use crate::claim::{Claim, Terms};
use crate::client::{Client, Core};
use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Result, show};
use crate::event::{self, What};
use crate::gate::{Entry, Place, Turn};
use crate::lease::Lease;
use crate::lock::Site;
use crate::op::{Cancel, Op};
use crate::runtime;
use crate::runtime::exit::Entry as Entrance;

/// How long after its deadline an acquire may still clean up before its caller is told.
const LATE: Duration = Duration::from_millis(100);
/// How long after a cancel.
const WITHDRAWAL: Duration = Duration::from_millis(250);

/// Everything one acquire knows.
struct Bid {
    core: Arc<Core>,
    site: Arc<Site>,
    client: Client,
    claim: Claim,
    cancel: Cancel,
    begun: Instant,
    deadline: Instant,
    signs: Arc<Signs>,
    /// Begun when the process was ending.
    late: bool,
}

/// What a bid shows of itself while it runs.
#[derive(Default)]
struct Signs {
    /// Told when the backend keeps an attempt for longer than it was given.
    mute: Notify,
    /// Whether anybody has said that the lock is busy.
    busy: AtomicBool,
    /// Why the last attempt failed that is being repeated.
    trouble: Mutex<Option<Error>>,
    /// Why it failed, told when only the withdrawal is left to do.
    failed: OnceLock<Error>,
    failing: Notify,
}

/// Acquires as the terms say.
pub(crate) fn start(site: &Arc<Site>, client: &Client, terms: &Arc<Terms>) -> Op<Lease> {
    match terms.retry {
        Some((tries, delay)) => retry(site, client, terms, tries, delay),
        None => begin(site, client, terms, terms.wait),
    }
}

/// Acquires within this time; `None`: without limit; zero: tries once.
pub(crate) fn begin(site: &Arc<Site>, client: &Client, terms: &Arc<Terms>, wait: Option<Duration>) -> Op<Lease> {
    match runtime::exit::entry() {
        Entrance::Silent => Op::new(Cancel::default(), std::future::pending()),
        entrance => enter(site, client, terms, wait, entrance == Entrance::Late),
    }
}

fn enter(site: &Arc<Site>, client: &Client, terms: &Arc<Terms>, wait: Option<Duration>, late: bool) -> Op<Lease> {
    let core = &site.core;
    let claim = Claim::new(core.number, terms.clone(), wait != Some(Duration::ZERO));
    if let Err(error) = client.check_open(late).and_then(|()| core.attended(terms)) {
        return Op::ready(Err(told(error, core, &claim)));
    }
    let slot = &site.slot;
    if core.capability.local
        && let Some(turn) = slot.try_turn()
    {
        match core.backend.try_now(&claim) {
            Some(Ok(Attempt::Granted { grant, since, ttl })) => {
                event::emit(|| What::Granted { wait: Duration::ZERO }.of(core.name(), &claim));
                let lease = Lease::new(core, client.id(), claim, grant, since, ttl, turn);
                // Closed meanwhile, when it wasn't there yet to be ended.
                let open = client.check_open(late).map_err(|e| e.with_key(terms.key.clone()).with_service(core.name()));
                return Op::ready(open.map(|()| lease));
            }
            Some(Err(error)) if !error.is_temporary() || !claim.wait => {
                return Op::ready(Err(told(error, core, &claim)));
            }
            _ if !claim.wait => return Op::ready(Err(busy(core, &claim, Duration::ZERO, ""))),
            // A call that nobody has polled keeps nothing: the turn is taken when it is.
            _ => {}
        }
    } else if !claim.wait && slot.is_taken() && !slot.is_ending() {
        // Held or waited for in this very process.
        return Op::ready(Err(busy(core, &claim, Duration::ZERO, "")));
    }
    let begun = Instant::now();
    let deadline = wait.map_or(Instant::NEVER, |wait| begun.plus(wait));
    let cancel = Cancel::default();
    let bid = Bid {
        core: core.clone(),
        site: site.clone(),
        client: client.clone(),
        claim,
        cancel: cancel.clone(),
        begun,
        deadline,
        signs: Arc::default(),
        late,
    };
    Op::new(cancel, bid.watched())
}

/// So many single tries, so far apart, instead of waiting.
fn retry(site: &Arc<Site>, client: &Client, terms: &Arc<Terms>, tries: u32, delay: Duration) -> Op<Lease> {
    // Asked here, and not where the rest runs.
    let late = runtime::exit::entry() == Entrance::Late;
    let once = move |site: &Arc<Site>, client: &Client, terms: &Arc<Terms>| match late {
        true => enter(site, client, terms, Some(Duration::ZERO), late),
        false => begin(site, client, terms, Some(Duration::ZERO)),
    };
    let first = once(site, client, terms);
    let (site, client, terms) = (site.clone(), client.clone(), terms.clone());
    let cancel = Cancel::default();
    let seen = cancel.clone();
    let rest = async move {
        let mut result = followed(first, &seen).await;
        for _ in 1..tries {
            match &result {
                Err(error) if error.kind() == Kind::Timeout || error.is_temporary() => {}
                _ => return result,
            }
            tokio::select! {
                biased;
                () = clock::sleep(delay) => {}
                () = seen.wished(1) => return Err(cancelled(&terms)),
            }
            result = followed(once(&site, &client, &terms), &seen).await;
        }
        result
    };
    Op::new(cancel, rest)
}

/// Awaits a call, and cancels it as its caller wishes to.
async fn followed(mut call: Op<Lease>, cancel: &Cancel) -> Result<Lease> {
    for wishes in 1..=2 {
        tokio::select! {
            biased;
            result = &mut call => return result,
            () = cancel.wished(wishes) => call.cancel(),
        }
    }
    call.await
}

impl Bid {
    async fn watched(self) -> Result<Lease> {
        let late = self.late;
        let result = self.answered().await;
        if !late && runtime::exit::ends_in_silence() {
            drop(result);
            return std::future::pending().await;
        }
        result
    }

    /// Runs the bid, and answers its caller in time whatever it is doing: what is unfinished goes on in the background
    /// and keeps the turn until it is settled.
    async fn answered(self) -> Result<Lease> {
        let (core, claim, begun, deadline) = (self.core.clone(), self.claim.clone(), self.begun, self.deadline);
        let (cancel, signs) = (self.cancel.clone(), self.signs.clone());
        let mut work = Box::pin(self.run());
        let late = async {
            let withdrawn = async {
                cancel.wished(1).await;
                tokio::select! {
                    biased;
                    () = clock::sleep(WITHDRAWAL) => {}
                    () = cancel.wished(2) => {}
                }
            };
            let failed = async {
                signs.failing.notified().await;
                clock::sleep(LATE).await;
            };
            let grace = if claim.wait { LATE } else { core.config.connect_timeout() };
            if mutant!("waits-for-cleanup") {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                biased;
                () = withdrawn => return cancelled(&claim.terms),
                () = clock::sleep_until(deadline.plus(grace)) => {}
                () = failed => return signs.failed.get().cloned().unwrap_or_else(|| cancelled(&claim.terms)),
                () = signs.mute.notified() => signs.busy.store(false, Ordering::Relaxed),
            }
            if signs.busy.load(Ordering::Relaxed) {
                busy(&core, &claim, Instant::now() - begun, "")
            } else {
                let trouble = runtime::locked(&signs.trouble).take();
                let none = || Error::unavailable("the backend gave no answer in time; try again");
                told(trouble.unwrap_or_else(none), &core, &claim)
            }
        };
        let error = tokio::select! {
            biased;
            result = &mut work => return result,
            error = late => error,
        };
        runtime::spawn_pending(async move { drop(work.await) });
        Err(error)
    }

    async fn run(mut self) -> Result<Lease> {
        event::emit(|| What::Waiting.of(self.core.name(), &self.claim));
        loop {
            let turn = match self.site.slot.queue(&self.claim, &self.cancel) {
                Entry::Turn(turn) => turn,
                Entry::Place(place) => Box::pin(self.turn(place)).await?,
                Entry::Busy => return Err(busy(&self.core, &self.claim, Duration::ZERO, "")),
            };
            self.client.check_open(self.late).map_err(|error| told(error, &self.core, &self.claim))?;
            turn.contend(&self.claim);
            let _contending = runtime::exit::Contending::new();
            let mut contender = self.core.backend.clone().contend(self.claim.clone());
            let (grant, since, ttl) = match self.contest(contender.as_mut()).await {
                Ok(granted) => granted,
                Err(error) => {
                    let error = told(error, &self.core, &self.claim);
                    let _ = self.signs.failed.set(error.clone());
                    self.signs.failing.notify_one();
                    turn.withdraw();
                    if !mutant!("no-withdrawal") {
                        Box::pin(self.withdraw(contender.as_mut())).await;
                    }
                    drop(turn);
                    return Err(error);
                }
            };
            let lease = Lease::new(&self.core, self.client.id(), self.claim.clone(), grant, since, ttl, turn);
            self.client.check_open(self.late).map_err(|error| told(error, &self.core, &self.claim))?;
            if lease.is_held() || mutant!("late-grant-entered") {
                event::emit(|| What::Granted { wait: self.waited() }.of(self.core.name(), &self.claim));
                return Ok(lease);
            }
            // Over before it came: never handed out. Its release keeps the turn, and this caller asks again.
            drop(lease);
            if !self.claim.wait || self.deadline.passed() {
                return Err(busy(&self.core, &self.claim, self.waited(), ""));
            }
            self.claim = Claim::new(self.core.number, self.claim.terms.clone(), self.claim.wait);
        }
    }

    /// The turn in the gate. One that only tries waits for what its own process has ended, and for a limited time.
    async fn turn(&self, place: Place) -> Result<Turn> {
        let ending = async {
            if self.claim.wait {
                return self.given_up().await;
            }
            tokio::select! {
                biased;
                () = self.cancel.wished(1) => cancelled(&self.claim.terms),
                () = clock::sleep(WITHDRAWAL) => busy(&self.core, &self.claim, Duration::ZERO, ""),
            }
        };
        if self.claim.wait {
            self.signs.busy.store(true, Ordering::Relaxed);
        }
        tokio::select! {
            biased;
            turn = place => turn.map_err(|_| match self.cancel.fired() {
                true => cancelled(&self.claim.terms),
                false => Error::new(Kind::Internal, "the local queue ended"),
            }),
            error = ending => match error.kind() {
                Kind::Timeout => Err(self.explained().await),
                _ => Err(told(error, &self.core, &self.claim)),
            },
        }
    }

    /// Resolves when the caller is not to wait any longer.
    async fn given_up(&self) -> Error {
        tokio::select! {
            biased;
            () = self.cancel.wished(1) => cancelled(&self.claim.terms),
            () = self.over() => self.client.check_open(self.late).err().unwrap_or_else(|| cancelled(&self.claim.terms)),
            () = clock::sleep_until(self.deadline) => busy(&self.core, &self.claim, self.waited(), ""),
            error = self.core.outage(self.begun) => error,
        }
    }

    /// Resolves when nothing is locked by this client any more.
    async fn over(&self) {
        tokio::select! {
            biased;
            () = self.client.closed().wished(1) => {}
            () = self.core.ending.wished(1 + u32::from(self.late)) => {}
        }
    }

    fn waited(&self) -> Duration {
        Instant::now() - self.begun
    }

    /// Tries until it is granted, refused, out of time, cancelled, or the backend has not answered for too long: this
    /// contender, or anybody.
    async fn contest(&self, contender: &mut dyn Contender) -> Result<Granted> {
        let outage = self.core.config.connect_timeout();
        let mut silent = None;
        let mut pause = Duration::from_millis(10);
        let mut last = false;
        loop {
            let budget = if last || !self.claim.wait { outage } else { self.deadline.left().min(outage) };
            // One that would only come to know of an outage is not to come to know of it late.
            let budget = budget.min(self.core.outage.end(self.begun, outage).left().max(LATE));
            let asked = Instant::now();
            let mut attempt = contender.attempt(budget);
            let answer = tokio::select! {
                biased;
                answer = &mut attempt => answer,
                () = clock::sleep(budget.max(outage).saturating_add(LATE)) => {
                    self.signs.mute.notify_one();
                    self.core.unheard(asked, &Error::unavailable("the backend gave no answer in time; try again"));
                    attempt.await
                }
            };
            self.core.heard(asked, &answer);
            let wake = match answer {
                Ok(Attempt::Granted { grant, since, ttl }) => return Ok((grant, since, ttl)),
                Ok(Attempt::Busy(wake)) => {
                    self.signs.busy.store(true, Ordering::Relaxed);
                    silent = None;
                    pause = Duration::from_millis(10);
                    if !self.claim.wait || last {
                        return Err(Box::pin(self.explained()).await);
                    }
                    wake
                }
                Err(error) if !error.is_temporary() || !self.claim.wait || last => return Err(error),
                // The very first contact is not repeated: a wrong address is told at once.
                Err(error) if !self.core.outage.has_answered() => return Err(error),
                Err(error) => {
                    let (since, _) = silent.get_or_insert_with(|| (asked, self.core.outage.asking()));
                    if Instant::now() - *since >= outage {
                        return Err(error);
                    }
                    *runtime::locked(&self.signs.trouble) = Some(error);
                    pause = (pause * 2).min(Duration::from_secs(1));
                    Wake { after: pause.mul_f64(0.75 + fastrand::f64() / 2.0), on: None }
                }
            };
            let on = async {
                match wake.on {
                    Some(on) => on.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                error = self.given_up() => match error.kind() {
                    // Time is up, but the lock may have become free meanwhile: one last try.
                    Kind::Timeout => last = true,
                    _ => return Err(error),
                },
                () = on => {}
                () = clock::sleep(wake.after), if !mutant!("no-safety-net") => {}
            }
        }
    }

    /// The error of a deadline, with what can be told of whoever holds the lock.
    async fn explained(&self) -> Error {
        let waited = self.waited();
        if !self.claim.wait {
            return busy(&self.core, &self.claim, waited, "");
        }
        event::emit(|| What::TimedOut { wait: waited }.of(self.core.name(), &self.claim));
        let mut by = String::new();
        if let Some(holder) = self.holder().await {
            by = " by".to_owned();
            match (&holder.host, holder.pid) {
                (Some(host), Some(pid)) => by += &format!(" process {pid} on {host}"),
                (None, Some(pid)) => by += &format!(" process {pid}"),
                _ => by += " another holder",
            }
            if let Some(label) = &holder.label {
                by += &format!(" ({})", show(label));
            }
            if let Some(age) = holder.age {
                by += &format!(" for {:.1} s", age.as_secs_f64());
            }
        }
        busy(&self.core, &self.claim, waited, &by)
    }

    /// Who holds the lock, if that can be told at once. However many ask in one moment, the backend is asked once.
    async fn holder(&self) -> Option<Holder> {
        let mut look = self.site.slot.look(LATE / 2, || {
            let (tell, look) = watch::channel(None);
            let (core, name) = (self.core.clone(), self.claim.terms.name.clone());
            runtime::spawn(async move {
                let asked = Instant::now();
                let all = tokio::time::timeout(LATE / 2, core.known(&name)).await;
                if let Ok(all) = &all {
                    core.heard(asked, all);
                }
                let first = all.ok().and_then(Result::ok).and_then(|all| all.into_iter().next());
                drop(tell.send(Some(first.filter(|first| first.held))));
            });
            look
        });
        let done = tokio::time::timeout(LATE / 2, look.wait_for(Option::is_some)).await;
        done.ok()?.ok()?.clone()?
    }

    /// Leaves nothing behind. The turn is kept until the backend has confirmed it, or until whatever is left there has
    /// ended by itself.
    async fn withdraw(&self, contender: &mut dyn Contender) {
        let end = Instant::now().plus(self.claim.terms.ttl).plus(self.core.config.connect_timeout());
        let mut pause = Duration::from_millis(10);
        while contender.withdraw().await.is_err() && !end.passed() {
            clock::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

type Granted = (Arc<dyn crate::backend::Grant>, Instant, Duration);

fn told(error: Error, core: &Core, claim: &Claim) -> Error {
    error.with_key(claim.terms.key.clone()).with_service(core.name())
}

fn cancelled(terms: &Terms) -> Error {
    Error::new(Kind::Cancelled, "the acquire was cancelled").with_key(terms.key.clone())
}

/// Not obtained: `by` tells of whom we know to hold it.
fn busy(core: &Core, claim: &Claim, waited: Duration, by: &str) -> Error {
    let text = if waited.is_zero() {
        "the lock is busy".to_owned()
    } else {
        format!("the lock is busy: not obtained within {:.3} s, held{by}", waited.as_secs_f64())
    };
    let text = text.strip_suffix(", held").map(str::to_owned).unwrap_or(text);
    told(Error::new(Kind::Timeout, text).temporary(true), core, claim)
}
