//! Sessions: one for each ttl, kept alive for all locks of that ttl at once. Its end is the end of all of them.
//!
//! A follower answers for the leader, which counts the timeout, and reports to it every half tick. So a lease counts for
//! three quarters of the session's timeout, and from a time of which the leader surely knows: see `State::heard`.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use super::connection::{Conn, Link, Lost, Reply, State};
use super::error::of_code;
use super::protocol::{Acl, Request, code};
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::net::address::Address;
use crate::net::failure::{Failure, Outcome};
use crate::net::request::{self, Limits, answer_within};
use crate::net::ttl_classes::{TtlClasses, seconds};
use crate::runtime::{self, lock};
use crate::timing::{self, PATIENCE};

pub(super) const PORT: u16 = 2181;

/// The pause before a server that can't serve the session is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// The most requests that are sent before the first of them is answered.
pub(super) const TOGETHER: usize = 500;

/// The answer to one of several requests.
pub(super) type Answer = Result<Reply, Failure>;

/// A request that failed. Its unanswered sendings have no more to tell: each is settled by the next answer.
pub(super) type Refusal = request::Refusal<()>;

/// A session at the servers.
pub(super) struct Session {
    pub(super) link: Arc<Link>,
    /// True if one claim has the session for itself.
    pub(super) dedicated: bool,
    pub(super) acl: Acl,
    /// The path of a node that doesn't exist.
    nothing: String,
    refreshing: tokio::sync::Mutex<()>,
    epoch: u32,
}

/// The sessions of a client.
pub(super) struct Sessions {
    config: Config,
    servers: Vec<Address>,
    root: String,
    context: Context,
    classes: TtlClasses<Class>,
    /// All sessions that may live.
    all: Mutex<Vec<Weak<Session>>>,
}

/// The session of one ttl.
#[derive(Default)]
struct Class(Mutex<Option<Arc<Session>>>);

/// Returns the timeout to ask for, for leases of this ttl.
fn timeout_for(seconds: u64) -> Duration {
    Duration::from_millis((seconds * 4_000).div_ceil(3))
}

/// Returns the ttl of the leases of a session with this timeout.
fn ttl_of(timeout: Duration) -> Duration {
    if mutant!("zookeeper-asked-timeout-trusted") {
        timeout
    } else {
        Duration::from_millis(timing::millis(timeout) * 3 / 4)
    }
}

impl Sessions {
    pub(super) fn new(config: &Config, servers: &[String], root: String, context: Context) -> Result<Self> {
        let servers = servers.iter().map(|server| Address::new(server, PORT, config)).collect::<Result<_>>()?;
        let (classes, all) = (TtlClasses::default(), Mutex::default());
        Ok(Self { config: config.clone(), servers, root, context, classes, all })
    }

    /// Returns the limits of a request.
    pub(super) fn limits(&self, patience: Duration) -> Limits {
        Limits { patience, budget: self.config.connect_timeout() }
    }

    /// Returns the session for a claim of this ttl, with at least half of it left. `dedicated`: a session that no other
    /// claim has.
    pub(super) async fn pick(&self, ttl: Duration, dedicated: bool, limits: Limits) -> Result<Arc<Session>, Refusal> {
        let wanted = seconds(ttl);
        let Some((seconds, class)) = (if dedicated { None } else { self.classes.get(wanted) }) else {
            let session = self.session(wanted, true);
            session.begun(limits).await?;
            return Ok(session);
        };
        let session = {
            let mut session = lock(&class.0);
            match &*session {
                Some(usable) if !usable.is_over() => usable.clone(),
                // Kept from here on, so that the next caller finds it also if this one leaves.
                _ => session.insert(self.session(seconds, false)).clone(),
            }
        };
        session.begun(limits).await?;
        if session.is_older_than(timing::session_limit(session.ttl())) {
            let not_before = Instant::now().minus(timing::session_refresh(session.ttl()));
            Box::pin(session.keep_alive(limits, not_before)).await?;
        } else if session.is_older_than(timing::session_refresh(session.ttl())) {
            session.refresh_later();
        }
        Ok(session)
    }

    /// Gives a session to no further claim. It ends with the claims that have it.
    pub(super) fn retire(&self, session: &Arc<Session>) {
        for class in self.classes.all() {
            lock(&class.0).take_if(|kept| Arc::ptr_eq(kept, session));
        }
    }

    /// Returns the path for a request that only asks for an answer.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// Returns the ttl of the configuration.
    pub(super) fn default_ttl(&self) -> Duration {
        self.config.default_ttl()
    }

    /// Returns a session that has not begun.
    fn session(&self, seconds: u64, dedicated: bool) -> Arc<Session> {
        let mut addresses = self.servers.clone();
        // Clients spread over the servers.
        fastrand::shuffle(&mut addresses);
        let state = State::new(timeout_for(seconds), self.context.clone());
        let session = Arc::new(Session {
            link: Arc::new(Link::new(addresses, self.config.clone(), state)),
            dedicated,
            acl: if self.config.values().contains("username") { Acl::Creator } else { Acl::Open },
            nothing: format!("{}/dlock-nothing-{:016x}", self.root.trim_end_matches('/'), fastrand::u64(..)),
            refreshing: tokio::sync::Mutex::default(),
            epoch: runtime::epoch(),
        });
        let mut all = lock(&self.all);
        all.retain(|session| session.strong_count() > 0);
        all.push(Arc::downgrade(&session));
        session
    }

    /// Ends all sessions, with all their nodes.
    pub(super) async fn close(&self) {
        let all: Vec<_> = lock(&self.all).drain(..).filter_map(|session| session.upgrade()).collect();
        let mut ends = JoinSet::new();
        for session in all {
            let limits = self.limits(PATIENCE);
            // Without an answer the session ends by its timeout.
            ends.spawn(async move { drop(session.close(limits).await) });
        }
        while ends.join_next().await.is_some() {}
    }
}

/// Returns the failure of an answer, if it has this outcome.
fn failed(answer: &Answer, outcome: Outcome) -> Option<&Failure> {
    answer.as_ref().err().filter(|failure| failure.outcome == outcome)
}

/// Waits within the limits for work that another task may be doing.
async fn bounded<T>(limits: Limits, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let done = answer_within(limits.budget, work).await;
    done.unwrap_or_else(|| Err(Refusal::not_applied(Error::unavailable("ZooKeeper began no session in time"))))
}

impl Session {
    /// Returns the request whose answer shows that a majority has all that was written before.
    pub(super) fn confirmation(&self) -> Request {
        Request::Confirm { path: self.nothing.clone() }
    }

    pub(super) fn state(&self) -> &State {
        &self.link.shared
    }

    /// Returns the ttl of its leases.
    pub(super) fn ttl(&self) -> Duration {
        ttl_of(self.state().timeout())
    }

    /// Returns the time from which the ttl counts.
    pub(super) fn since(&self) -> Instant {
        self.state().since()
    }

    /// Returns true if that time is longer ago than this.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.since().plus(age).passed()
    }

    /// Returns true if the session has ended, for us or at the servers.
    pub(super) fn is_over(&self) -> bool {
        self.state().is_over()
    }

    /// Sends a request, and sends it again after a connection that was lost, if that can do no harm.
    pub(super) async fn ask(&self, request: Request, limits: Limits) -> Result<Reply, Refusal> {
        let replies = self.ask_all(&[request], limits).await?;
        Ok(replies.into_iter().next().expect("one for each request"))
    }

    /// Sends requests one behind another, and returns their answers in the same order. Sends them again after a
    /// connection that was lost, if that can do no harm.
    pub(super) async fn ask_all(&self, requests: &[Request], limits: Limits) -> Result<Vec<Reply>, Refusal> {
        let answers = self.ask_each(requests, limits).await?;
        answers.into_iter().map(|answer| answer.map_err(Refusal::from)).collect()
    }

    /// Sends requests as [`ask_all`](Self::ask_all). Returns the answer to each of them.
    pub(super) async fn ask_each(&self, requests: &[Request], limits: Limits) -> Result<Vec<Answer>, Refusal> {
        let end = Instant::now().plus(limits.budget);
        let mut answers = Vec::with_capacity(requests.len());
        for some in requests.chunks(TOGETHER) {
            let limits = Limits { budget: end.left(), ..limits };
            answers.extend(self.ask_together(some, limits).await?);
        }
        Ok(answers)
    }

    async fn ask_together(&self, requests: &[Request], limits: Limits) -> Result<Vec<Answer>, Refusal> {
        let end = Instant::now().plus(limits.budget);
        let repeatable = requests.iter().all(Request::is_repeatable);
        let mut tries = self.link.addresses.len() + 2;
        loop {
            let conn = self.connected(end).await?;
            let sent = Instant::now();
            let calls: Vec<_> = requests.iter().map(|request| conn.call(request)).collect();
            let answered = answer_within(limits.patience.min(end.left()), async {
                let mut replies = Vec::with_capacity(calls.len());
                for call in calls {
                    let closed = || Error::unavailable("the connection to ZooKeeper was closed");
                    let reply = call.await.unwrap_or_else(|_| Err(Lost { error: closed(), sent: true }));
                    let begun = !replies.is_empty();
                    replies.push(reply.map_err(|lost| Lost { sent: lost.sent || begun, ..lost })?);
                }
                Ok(replies)
            });
            let silent = || Err(Lost { error: self.link.silence("no answer came in time"), sent: true });
            let failure = match answered.await.unwrap_or_else(silent) {
                Ok(replies) => {
                    let judged = replies.into_iter().zip(requests);
                    let judged: Vec<_> = judged.map(|(reply, request)| self.judge(reply, request, sent)).collect();
                    let gone = judged.iter().find_map(|one| failed(one, Outcome::LeaseGone));
                    // What a server has done is not asked for again, unless that can do no harm.
                    let again = if repeatable { &judged[..] } else { &judged[..judged.len().min(1)] };
                    match gone.or_else(|| again.iter().find_map(|one| failed(one, Outcome::TryElsewhere))) {
                        None => return Ok(judged),
                        Some(failure) => failure.clone(),
                    }
                }
                Err(lost) if lost.sent => Failure::in_doubt(lost.error),
                Err(lost) => Failure { error: lost.error, outcome: Outcome::TryElsewhere },
            };
            if !matches!(failure.outcome, Outcome::InDoubt | Outcome::TryElsewhere) {
                return Err(failure.into());
            }
            self.link.give_up(&conn);
            tries -= 1;
            if failure.outcome == Outcome::InDoubt && !repeatable || tries == 0 || end.passed() {
                return Err(failure.into());
            }
            clock::sleep(PAUSE.min(end.left())).await;
        }
    }

    /// Makes sure that the session has begun.
    async fn begun(&self, limits: Limits) -> Result<(), Refusal> {
        if self.state().id() == 0 {
            self.connected(Instant::now().plus(limits.budget)).await?;
        }
        Ok(())
    }

    /// Returns a connection of the session.
    async fn connected(&self, end: Instant) -> Result<Arc<Conn>, Refusal> {
        if self.is_over() {
            return Err(self.gone());
        }
        let made = self.link.connected(end).await;
        made.map_err(|failure| if self.is_over() { self.gone() } else { failure.into() })
    }

    /// Takes in an answer: what of it is for the caller, or the failure that it stands for.
    fn judge(&self, reply: Reply, request: &Request, sent: Instant) -> Result<Reply, Failure> {
        match reply.code {
            code::OK | code::NO_NODE | code::NODE_EXISTS => {
                self.state().heard(sent, request.is_a_write());
                Ok(reply)
            }
            code::NO_AUTH if matches!(request, Request::Confirm { .. }) => {
                self.state().heard(sent, request.is_a_write());
                Ok(reply)
            }
            found => {
                let failure = of_code(found, request.path(), &self.link.names());
                if failure.outcome == Outcome::LeaseGone {
                    self.state().end();
                }
                Err(failure)
            }
        }
    }

    fn gone(&self) -> Refusal {
        self.state().end();
        let error = Error::unavailable(format!("the session at ZooKeeper {} has ended", self.link.names()));
        Failure { error, outcome: Outcome::LeaseGone }.into()
    }

    /// Keeps the session alive, unless a request that was sent at `not_before` or later has done that. Returns false if
    /// it has ended.
    pub(super) async fn keep_alive(&self, limits: Limits, not_before: Instant) -> Result<bool, Refusal> {
        let kept = async {
            let _one = self.refreshing.lock().await;
            if self.is_over() {
                return Ok(false);
            }
            if self.since() >= not_before {
                return Ok(true);
            }
            match self.confirm(limits).await {
                Ok(()) => Ok(true),
                Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => Ok(false),
                Err(refusal) => Err(refusal),
            }
        };
        bounded(limits, kept).await
    }

    /// Has a majority confirm that the session lives: by a write, and after a silence on another connection, of which the
    /// leader knows at once.
    async fn confirm(&self, limits: Limits) -> Result<(), Refusal> {
        let end = Instant::now().plus(limits.budget);
        if self.state().is_unheard() && self.link.is_connected() && !mutant!("zookeeper-follower-trusted") {
            self.link.give_up(&*self.connected(end).await?);
        }
        self.ask(self.confirmation(), Limits { budget: end.left(), ..limits }).await.map(drop)
    }

    /// Keeps the session alive in the background.
    fn refresh_later(self: &Arc<Self>) {
        let session = self.clone();
        let limits = session.link.limits(PATIENCE);
        runtime::spawn(async move {
            let not_before = Instant::now().minus(timing::session_refresh(session.ttl()));
            let _ = session.keep_alive(limits, not_before).await;
        });
    }

    /// Ends the session: its nodes are deleted, and none can be created later.
    pub(super) async fn close(&self, limits: Limits) -> Result<(), Refusal> {
        if !self.is_over() && self.state().id() != 0 {
            match self.ask(Request::CloseSession, limits).await {
                Ok(_) => {}
                Err(refusal) if refusal.failure.outcome == Outcome::LeaseGone => {}
                Err(refusal) => return Err(refusal),
            }
        }
        self.state().end();
        Ok(())
    }
}

/// Ends the session in the background, but not in a child of fork: the session is the parent's.
impl Drop for Session {
    fn drop(&mut self) {
        if self.epoch != runtime::epoch() || self.is_over() || self.state().id() == 0 {
            return;
        }
        let link = self.link.clone();
        runtime::spawn_tracked(async move {
            // Only on the connection that there is: without one the session ends by its timeout.
            if link.is_connected()
                && let Ok(conn) = link.connected(Instant::now().plus(PATIENCE)).await
            {
                let _ = answer_within(PATIENCE, conn.call(&Request::CloseSession)).await;
            }
        });
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:x}, {:?})", self.state().id(), self.state().timeout())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.classes.fmt(f)
    }
}
