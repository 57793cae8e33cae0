//! The sessions of a client: a few for each ttl. One that holds a lock takes further tries; a wait has one for itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::connection::Server;
use super::session::{Chosen, Purpose, Session};
use crate::contract::Context;
use crate::error::Error;
use crate::net::failure::Failure;
use crate::net::request::{Limits, answer_within};
use crate::net::ttl_classes::{TtlClasses, seconds};
use crate::runtime::lock;
use crate::timing::PATIENCE;

/// The number of sessions of one ttl that are kept although they have nothing to do.
const SPARE: usize = 2;

/// The number of sessions over which statements about rows are spread.
const SPREAD: usize = 4;

/// The number of acquires that wait at once after one that had to.
const CONTENDED: u32 = 16;

/// The number of names that are remembered as contended.
const NAMES: usize = 1024;

/// The sessions of a client.
pub(super) struct Sessions {
    pub(super) server: Arc<Server>,
    context: Context,
    purpose: Purpose,
    default_ttl: Duration,
    classes: TtlClasses<Class>,
    /// The locks that were busy of late, each with the number of acquires that begin with a wait.
    contended: Mutex<HashMap<Arc<str>, u32>>,
}

/// The sessions of one ttl.
#[derive(Default)]
struct Class {
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Held while a session for tries begins, so that many callers at once make one.
    beginning: tokio::sync::Mutex<()>,
}

impl Class {
    /// Removes the sessions that have ended, and those that are one too many.
    fn tidy(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Session>>> {
        let mut sessions = lock(&self.sessions);
        let mut spare = 0;
        sessions.retain(|session| {
            spare += usize::from(session.is_idle());
            !session.is_over() && (spare <= SPARE || !session.is_idle())
        });
        sessions
    }

    fn choose(&self, except: Option<&Session>) -> Option<Chosen> {
        let sessions = self.tidy();
        let others = || sessions.iter().filter(|one| except.is_none_or(|except| except.number() != one.number()));
        let of = |holds| others().find_map(|session| session.choose(holds));
        of(true).or_else(|| of(false))
    }

    /// Returns the session with the fewest statements, their number, and the number of sessions.
    fn least_busy(&self, except: Option<&Session>) -> (Option<(Chosen, usize)>, usize) {
        let sessions = self.tidy();
        let others = sessions.iter().filter(|one| except.is_none_or(|except| except.number() != one.number()));
        let loads = others.filter_map(|session| {
            let load = session.load();
            session.choose(false).map(|chosen| (chosen, load))
        });
        (loads.min_by_key(|(_, load)| *load), sessions.len())
    }

    fn take(&self) -> Option<Arc<Session>> {
        self.tidy().iter().find(|session| session.take()).cloned()
    }
}

impl Sessions {
    pub(super) fn new(server: Server, purpose: Purpose, default_ttl: Duration, context: Context) -> Self {
        let (classes, contended) = (TtlClasses::default(), Mutex::default());
        Self { server: Arc::new(server), context, purpose, default_ttl, classes, contended }
    }

    /// Returns the limits of a request.
    pub(super) fn limits(&self, patience: Duration) -> Limits {
        self.server.limits(patience)
    }

    /// Returns a session for statements that don't wait, about locks of this ttl; `except`: another than this one.
    pub(super) async fn choose(
        &self,
        ttl: Duration,
        except: Option<&Session>,
        budget: Duration,
    ) -> Result<Chosen, Failure> {
        let (seconds, class) = self.class(ttl)?;
        if let Some(chosen) = class.choose(except) {
            return Ok(chosen);
        }
        let begun = async {
            let _one = class.beginning.lock().await;
            if let Some(chosen) = class.choose(except) {
                return Ok(chosen);
            }
            let session = Session::begin(&self.server, &self.context, self.purpose, seconds, false).await?;
            let chosen = session.choose(false).ok_or_else(|| self.silent())?;
            lock(&class.sessions).push(session);
            Ok(chosen)
        };
        answer_within(budget, Box::pin(begun)).await.unwrap_or_else(|| Err(self.silent()))
    }

    /// Returns a session for requests that are about no ttl.
    pub(super) async fn asking(&self, except: Option<&Session>) -> Result<Chosen, Failure> {
        match self.classes.all().iter().find_map(|class| class.choose(except)) {
            Some(chosen) => Ok(chosen),
            None => self.choose(self.default_ttl, except, self.limits(PATIENCE).budget).await,
        }
    }

    /// Returns a session for statements about rows: one that has nothing to do, a new one, or the one with the fewest
    /// statements. `except`: another than this one.
    pub(super) async fn spread(&self, except: Option<&Session>, budget: Duration) -> Result<Chosen, Failure> {
        let (seconds, class) = self.class(self.default_ttl)?;
        let (least, many) = class.least_busy(except);
        let (busy, beginning) = match least {
            Some((chosen, 0)) => return Ok(chosen),
            Some((chosen, _)) if many >= SPREAD => return Ok(chosen),
            Some((chosen, _)) => match class.beginning.try_lock() {
                Ok(beginning) => (chosen, beginning),
                Err(_) => return Ok(chosen),
            },
            None => return self.choose(self.default_ttl, except, budget).await,
        };
        let begun = Box::pin(Session::begin(&self.server, &self.context, self.purpose, seconds, false));
        let begun = answer_within(budget.min(PATIENCE), begun).await;
        drop(beginning);
        let Some(Ok(session)) = begun else { return Ok(busy) };
        let chosen = session.choose(false);
        lock(&class.sessions).push(session);
        Ok(chosen.unwrap_or(busy))
    }

    /// Begins a session that no other claim gets, and that isn't kept alive.
    pub(super) async fn begin(&self, ttl: Duration, budget: Duration) -> Result<Arc<Session>, Failure> {
        self.begun(seconds(ttl), true, budget).await
    }

    /// Returns a session for a wait, taken for it. `dedicated`: one that no other claim gets.
    pub(super) async fn take(&self, ttl: Duration, dedicated: bool, budget: Duration) -> Result<Arc<Session>, Failure> {
        if dedicated {
            let session = self.begin(ttl, budget).await?;
            return if session.take() { Ok(session) } else { Err(self.silent()) };
        }
        let (seconds, class) = self.class(ttl)?;
        if let Some(session) = class.take() {
            return Ok(session);
        }
        let session = self.begun(seconds, false, budget).await?;
        if !session.take() {
            return Err(self.silent());
        }
        lock(&class.sessions).push(session.clone());
        Ok(session)
    }

    async fn begun(&self, seconds: u64, dedicated: bool, budget: Duration) -> Result<Arc<Session>, Failure> {
        let begun = Box::pin(Session::begin(&self.server, &self.context, self.purpose, seconds, dedicated));
        answer_within(budget, begun).await.unwrap_or_else(|| Err(self.silent()))
    }

    fn class(&self, ttl: Duration) -> Result<(u64, Arc<Class>), Failure> {
        let wanted = seconds(ttl);
        self.classes.get(wanted).ok_or_else(|| {
            Failure::not_applied(Error::invalid(format!(
                "a ttl of {wanted} s is one too many: a client has locks of 8 different ttls, and none is longer; use one of \
                 those, or a client of its own"
            )))
        })
    }

    fn silent(&self) -> Failure {
        Failure::not_applied(self.server.silence("no session was begun in time"))
    }

    /// Returns true if the lock was busy of late, so that a claim waits for it at once.
    pub(super) fn waits_at_once(&self, name: &str) -> bool {
        let mut contended = lock(&self.contended);
        let Some(left) = contended.get_mut(name) else { return false };
        *left -= 1;
        if *left == 0 {
            contended.remove(name);
        }
        true
    }

    /// Notes that a lock is busy.
    pub(super) fn is_busy(&self, name: &Arc<str>) {
        let mut contended = lock(&self.contended);
        if contended.len() >= NAMES {
            contended.clear();
        }
        contended.insert(name.clone(), CONTENDED);
    }

    /// Ends all sessions.
    pub(super) fn close(&self) {
        self.classes.all().iter().for_each(|class| lock(&class.sessions).clear());
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({}, {:?})", self.server.name(), self.classes)
    }
}
