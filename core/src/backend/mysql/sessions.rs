//! The sessions of a client: a few for each ttl. One that holds a lock takes further tries; a wait has one for itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use super::connection::Server;
use super::error;
use super::session::{Chosen, Purpose, Session};
use crate::contract::Context;
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
    /// The sessions that were begun because every other had to do with a ttl.
    others: Class,
    /// All sessions that may live.
    all: Mutex<Vec<Weak<Session>>>,
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
    fn tidy(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        let mut sessions = lock(&self.sessions);
        let mut spare = 0;
        sessions.retain(|session| {
            spare += usize::from(session.is_idle());
            !session.is_over() && (spare <= SPARE || !session.is_idle())
        });
        sessions
    }

    /// Chooses a session for statements that don't wait: first of those that hold a lock, or of those that hold none.
    fn choose(&self, holds: bool, except: Option<&Session>) -> Option<Chosen> {
        let sessions = self.tidy();
        let others = || sessions.iter().filter(|one| except.is_none_or(|except| except.number() != one.number()));
        let of = |holds| others().find_map(|session| session.choose(holds));
        of(holds).or_else(|| of(!holds))
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
        Self {
            server: Arc::new(server),
            context,
            purpose,
            default_ttl,
            classes: TtlClasses::default(),
            others: Class::default(),
            all: Mutex::default(),
            contended: Mutex::default(),
        }
    }

    /// Returns the limits of a request.
    pub(super) fn limits(&self, patience: Duration) -> Limits {
        self.server.limits(patience)
    }

    /// Returns a session for a try of a lock of this ttl.
    pub(super) async fn choose(&self, ttl: Duration, budget: Duration) -> Result<Chosen, Failure> {
        match self.classes.get(seconds(ttl)) {
            Some((seconds, class)) => self.choose_of(&class, seconds, budget).await,
            // There are too many ttls.
            None => {
                let session = self.begin(ttl, false, budget).await?;
                session.choose(false).ok_or_else(|| self.silent())
            }
        }
    }

    async fn choose_of(&self, class: &Class, seconds: u64, budget: Duration) -> Result<Chosen, Failure> {
        if let Some(chosen) = class.choose(true, None) {
            return Ok(chosen);
        }
        let begun = async {
            let _one = class.beginning.lock().await;
            if let Some(chosen) = class.choose(true, None) {
                return Ok(chosen);
            }
            let session = self.begun(seconds, false).await?;
            let chosen = session.choose(false).ok_or_else(|| self.silent())?;
            lock(&class.sessions).push(session);
            Ok(chosen)
        };
        answer_within(budget, Box::pin(begun)).await.unwrap_or_else(|| Err(self.silent()))
    }

    /// Returns a session for requests that are about no ttl, rather one that holds no lock. `except`: another than this one.
    pub(super) async fn asking(&self, except: Option<&Session>) -> Result<Chosen, Failure> {
        let classes = self.classes.all();
        let mut all = classes.iter().map(|class| &**class).chain([&self.others]);
        match all.find_map(|class| class.choose(false, except)) {
            Some(chosen) => Ok(chosen),
            None => self.choose_of(&self.others, seconds(self.default_ttl), self.limits(PATIENCE).budget).await,
        }
    }

    /// Returns a session for statements about rows: one that has nothing to do, a new one, or the one with the fewest
    /// statements. `except`: another than this one.
    pub(super) async fn spread(&self, except: Option<&Session>, budget: Duration) -> Result<Chosen, Failure> {
        let class = &self.others;
        let (least, many) = class.least_busy(except);
        let (busy, beginning) = match least {
            Some((chosen, 0)) => return Ok(chosen),
            Some((chosen, _)) if many >= SPREAD => return Ok(chosen),
            Some((chosen, _)) => match class.beginning.try_lock() {
                Ok(beginning) => (Some(chosen), beginning),
                Err(_) => return Ok(chosen),
            },
            None => match answer_within(budget, class.beginning.lock()).await {
                Some(beginning) => match class.choose(false, except) {
                    Some(chosen) => return Ok(chosen),
                    None => (None, beginning),
                },
                None => return Err(self.silent()),
            },
        };
        let budget = if busy.is_some() { budget.min(PATIENCE) } else { budget };
        let begun = self.begin(self.default_ttl, false, budget).await;
        drop(beginning);
        match (begun, busy) {
            (Ok(session), busy) => {
                let chosen = session.choose(false);
                lock(&class.sessions).push(session);
                chosen.or(busy).ok_or_else(|| self.silent())
            }
            (Err(_), Some(busy)) => Ok(busy),
            (Err(failure), None) => Err(failure),
        }
    }

    /// Begins a session that no other claim gets. `dedicated`: it isn't kept alive either.
    pub(super) async fn begin(
        &self,
        ttl: Duration,
        dedicated: bool,
        budget: Duration,
    ) -> Result<Arc<Session>, Failure> {
        let begun = Box::pin(self.begun(seconds(ttl), dedicated));
        answer_within(budget, begun).await.unwrap_or_else(|| Err(self.silent()))
    }

    /// Returns a session for a wait, taken for it. `dedicated`: one that no other claim gets.
    pub(super) async fn take(&self, ttl: Duration, dedicated: bool, budget: Duration) -> Result<Arc<Session>, Failure> {
        let class = if dedicated { None } else { self.classes.get(seconds(ttl)) };
        if let Some((_, class)) = &class
            && let Some(session) = class.take()
        {
            return Ok(session);
        }
        let ttl = class.as_ref().map_or(ttl, |(seconds, _)| Duration::from_secs(*seconds));
        let session = self.begin(ttl, dedicated, budget).await?;
        if !session.take() {
            return Err(self.silent());
        }
        if let Some((_, class)) = class {
            lock(&class.sessions).push(session.clone());
        }
        Ok(session)
    }

    async fn begun(&self, seconds: u64, dedicated: bool) -> Result<Arc<Session>, Failure> {
        let session = Session::begin(&self.server, &self.context, self.purpose, seconds, dedicated).await?;
        if self.purpose == Purpose::Rows {
            return Ok(session);
        }
        let mut all = lock(&self.all);
        all.retain(|one| one.strong_count() > 0);
        // The server was started again, or is another one. What holds no lock can go there.
        let elsewhere = |other: &Arc<Session>| !other.is_over() && other.place() != session.place();
        if all.iter().filter_map(Weak::upgrade).filter(elsewhere).any(|other| !other.give_up()) {
            return Err(Failure::not_applied(error::several_servers(self.server.name())));
        }
        all.push(Arc::downgrade(&session));
        Ok(session)
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
        lock(&self.others.sessions).clear();
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({}, {:?})", self.server.name(), self.classes)
    }
}
