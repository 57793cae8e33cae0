//! A client: one backend and what this process shares for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::backend::{Alarm, Backend, Capability, DRIVERS, Holder};
use crate::claim::{Terms, unsupported};
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::gate::Gate;
use crate::lease::Ending;
use crate::lock::Lock;
use crate::op::{Cancel, Op};
use crate::outage::Outage;
use crate::runtime::{self, PerProcess};
use crate::watchdog::Watchdog;

/// A handle on one backend. Clients of equal configuration share everything: connection, local queue, watchdog.
///
/// In a child of fork it connects anew on first use. Dropping the last clone ends nothing: leases and acquires go on.
/// At the end of the process ([`shutdown`]) all that is held is given back.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    id: u64,
    config: Config,
    core: ArcSwap<Core>,
    closed: Cancel,
}

/// What the clients of equal configuration share in one process.
pub(crate) struct Core {
    pub(crate) epoch: u32,
    /// Tells it from the others of this process.
    pub(crate) number: u32,
    pub(crate) config: Config,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) capability: Capability,
    pub(crate) gate: Arc<Gate>,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) outage: Outage,
    /// Fires when the process ends.
    pub(crate) ending: Cancel,
}

static CORES: PerProcess<Mutex<HashMap<Config, Weak<Core>>>> = PerProcess::new();

impl Client {
    /// The client for this URL. No I/O: that begins with the first call, or with [`ping`](Self::ping).
    ///
    /// # Errors
    /// `Invalid` for a URL that can't be used.
    pub fn connect(url: &str) -> Result<Self> {
        Self::open(Config::from_url(url)?)
    }

    /// The client for this configuration.
    ///
    /// # Errors
    /// `Invalid` for a configuration the backend can't use.
    pub fn open(config: Config) -> Result<Self> {
        let core = share(&config)?;
        Ok(Self::of(core))
    }

    /// A client that shares nothing.
    #[cfg(feature = "testing")]
    pub(crate) fn apart(config: Config, make: impl FnOnce(Alarm) -> Result<Arc<dyn Backend>>) -> Result<Self> {
        Core::new(config, make).map(Self::of)
    }

    fn of(core: Arc<Core>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = core.config.clone();
        Self(Arc::new(Shared { id, config, core: ArcSwap::new(core), closed: Cancel::default() }))
    }

    /// A lock on this key. No I/O; a key that can't be used is reported by [`Lock::check`] and by the first acquire.
    pub fn lock(&self, key: &str) -> Lock {
        Lock::new(self.clone(), Terms::new(key))
    }

    /// Who holds the key and who waits for it, holder first. What can't be told is `None`.
    pub fn holders(&self, key: &str) -> Op<Vec<Holder>> {
        self.call(key, |core, name| async move { core.holders(&name).await })
    }

    /// Takes the lock away from whoever holds it, and says whether anybody did. A holder in this process is told at
    /// once, whichever client it is of. Another one learns of it at its next exchange with the backend at the latest, so
    /// only its fencing token guards what it does until then.
    pub fn break_lock(&self, key: &str) -> Op<bool> {
        self.call(key, |core, name| async move {
            let broken = core.backend.break_lock(&name).await?;
            if broken {
                core.suspect_everywhere(&name);
            }
            Ok(broken)
        })
    }

    /// Checks that the backend answers.
    pub fn ping(&self) -> Op<()> {
        match self.core() {
            Ok(core) => Op::going(Some(core.config.connect_timeout()), async move {
                let asked = Instant::now();
                let answer = core.backend.ping().await;
                core.heard(asked, &answer);
                answer
            }),
            Err(error) => Op::ready(Err(error)),
        }
    }

    /// Ends this handle: its waiters get an error, its leases are lost to their holders, who are told, and then given
    /// back. Idempotent. Other handles of the same configuration are not concerned.
    ///
    /// # Errors
    /// `Backend`, temporary, when a release isn't confirmed within the limit; it goes on in the background.
    pub fn close(&self, limit: Duration) -> Op<()> {
        self.0.closed.fire();
        let core = self.0.core.load_full();
        if core.epoch != runtime::epoch() {
            return Op::ready(Ok(()));
        }
        let id = self.0.id;
        let leases: Vec<_> = core.gate.holders().into_iter().filter(|lease| lease.handle == id).collect();
        let Some(ended) = Ending::begin(leases, true) else {
            return Op::ready(Ok(()));
        };
        Op::going(None, async move {
            tokio::select! {
                biased;
                done = ended.confirmed() => done,
                () = clock::sleep(limit) => Err(Error::unavailable(format!(
                    "not every lock was confirmed as released within {limit:?}; they end by their ttl"
                ))),
            }
        })
    }

    /// Whether this handle was closed: every call by it fails.
    pub fn is_closed(&self) -> bool {
        self.0.closed.fired()
    }

    /// The backend's name.
    pub fn backend(&self) -> &'static str {
        self.0.config.driver().name
    }

    /// What the backend can do and promises.
    pub fn capability(&self) -> Capability {
        self.0.core.load().capability.clone()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// What this process's clients of the same configuration are called in the backend's queue and at the beginning of
    /// their tokens: `dlock:<host>:<pid>:<128 random bits>:<number>`. Another one in a child of fork.
    ///
    /// # Errors
    /// `Invalid` when the client was closed.
    pub fn identity(&self) -> Result<String> {
        Ok(crate::claim::contender(self.core()?.number))
    }

    /// Which keys this process holds (true) and waits for (false).
    ///
    /// # Errors
    /// `Invalid` when the client was closed.
    pub fn query(&self) -> Result<Vec<(String, bool)>> {
        Ok(self.core()?.gate.query())
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    pub(crate) fn closed(&self) -> &Cancel {
        &self.0.closed
    }

    /// Another handle on the same; this one where it was closed.
    pub(crate) fn another(&self) -> Result<Self> {
        if self.is_closed() { Ok(self.clone()) } else { Ok(Self::of(self.core()?)) }
    }

    /// Whether anything is locked by this handle any more, also `late`, when the process is ending; else why not.
    pub(crate) fn check_open(&self, late: bool) -> Result<()> {
        if !late && runtime::exit::is_ending() {
            return Err(Error::new(Kind::Invalid, "the process is ending: all clients are closed"));
        }
        if self.is_closed() {
            return Err(Error::new(Kind::Invalid, "the client was closed while the call waited"));
        }
        Ok(())
    }

    /// What is shared in this process: made anew in a child of fork.
    pub(crate) fn core(&self) -> Result<Arc<Core>> {
        if self.0.closed.fired() {
            return Err(Error::new(Kind::Invalid, "the client was closed; connect again").with_service(self.backend()));
        }
        let core = self.0.core.load_full();
        if core.epoch == runtime::epoch() {
            return Ok(core);
        }
        if !core.capability.fork {
            return Err(unsupported(self.backend(), "a client in a forked child whose parent used it", |c| c.fork));
        }
        let fresh = share(&self.0.config)?;
        // The parent's is leaked: what it leads to may be locked for ever.
        std::mem::forget(self.0.core.swap(fresh.clone()));
        std::mem::forget(core);
        Ok(fresh)
    }

    fn call<T, F>(&self, key: &str, work: impl FnOnce(Arc<Core>, String) -> F) -> Op<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let lock = self.lock(key);
        let ready = lock.check().and_then(|()| self.core());
        match ready {
            Ok(core) => {
                let limit = core.config.connect_timeout();
                let work = work(core.clone(), lock.backend_name().to_owned());
                Op::going(Some(limit), async move {
                    let asked = Instant::now();
                    let answer = work.await;
                    core.heard(asked, &answer);
                    answer
                })
            }
            Err(error) => Op::ready(Err(error.with_key(key))),
        }
    }
}

/// In a child of fork the parent's core is leaked: what it leads to may be locked for ever.
impl Drop for Shared {
    fn drop(&mut self) {
        let core = self.core.load_full();
        if core.epoch != runtime::epoch() {
            std::mem::forget(core);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.config.url()).finish()
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Core").field(&self.config.url()).finish()
    }
}

impl Core {
    pub(crate) fn new(config: Config, make: impl FnOnce(Alarm) -> Result<Arc<dyn Backend>>) -> Result<Arc<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let alarm = Alarm::new(number);
        let backend = make(alarm.clone())?;
        let core = Arc::new(Self {
            epoch: runtime::epoch(),
            number,
            config,
            capability: backend.capability(),
            backend,
            gate: Arc::default(),
            watchdog: Arc::new(Watchdog::new()),
            outage: Outage::new(),
            ending: Cancel::default(),
        });
        alarm.belongs_to(&core);
        Ok(core)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.config.driver().name
    }

    /// Whether the lease on these terms has no end of its own, because the process is the lease.
    pub(crate) fn endless(&self, terms: &Terms) -> bool {
        self.capability.local && terms.renew
    }

    /// Has the lease held under this encoded name renewed at once, whichever client of this process has it.
    fn suspect_everywhere(self: &Arc<Self>, name: &str) {
        self.suspect(name);
        if mutant!("client-break-told-to-its-own") {
            return;
        }
        let others = cores().into_iter().filter(|core| core.number != self.number && core.may_share(self));
        others.for_each(|core| core.suspect(name));
    }

    /// Whether both may lead to the same locks: of a server there may be many addresses, of a directory many names.
    fn may_share(&self, other: &Self) -> bool {
        let place = |core: &Self| (core.config.driver().authority)(core.config.values());
        self.name() == other.name() && (self.capability.processes || place(self) == place(other))
    }

    /// Who holds a name and who waits for it, in this process too.
    pub(crate) async fn holders(&self, name: &str) -> Result<Vec<Holder>> {
        let mut all = self.known(name).await?;
        if let Some(slot) = self.gate.find(name) {
            // A backend's queue has at the most one entry a process: these are not in it.
            all.extend(slot.waiting().iter().map(|(claim, since)| here(claim, false, Instant::now() - *since)));
        }
        Ok(all)
    }

    /// Who stands at the backend, with what this process knows of a holder of its own.
    pub(crate) async fn known(&self, name: &str) -> Result<Vec<Holder>> {
        let mut all = self.backend.holders(name).await?;
        let ours = self.gate.find(name).and_then(|slot| slot.holder());
        if let (Some(first), Some(ours)) = (all.first_mut().filter(|first| first.held), ours) {
            // Which of the backend's is ours we know where it can't tell the token, and where the tokens are equal.
            let ours_is_it = match &first.token {
                Some(token) => *token == ours.claim().token(),
                None => first.pid.is_none_or(|pid| pid == std::process::id()),
            };
            if ours_is_it {
                let known = here(ours.claim(), true, ours.age());
                first.token = first.token.take().or(known.token);
                first.label = first.label.take().or(known.label);
                first.host = first.host.take().or(known.host);
                first.pid = first.pid.or(known.pid);
                first.fence = first.fence.or(ours.fence());
                first.age = first.age.or(known.age);
            }
        }
        Ok(all)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.watchdog.stop();
    }
}

fn here(claim: &crate::claim::Claim, held: bool, age: Duration) -> Holder {
    Holder {
        held,
        token: Some(claim.token()),
        label: claim.terms.label.as_deref().map(str::to_owned),
        host: Some(host().to_owned()),
        pid: Some(std::process::id()),
        fence: None,
        age: Some(age),
        ttl: None,
    }
}

fn share(config: &Config) -> Result<Arc<Core>> {
    let mut cores = CORES.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(core) = cores.get(config).and_then(Weak::upgrade) {
        return Ok(core);
    }
    let core = Core::new(config.clone(), |alarm| (config.driver().connect)(config, alarm))?;
    cores.retain(|_, core| core.strong_count() > 0);
    cores.insert(config.clone(), Arc::downgrade(&core));
    Ok(core)
}

/// The orderly end of this process's part: all clients are closed. Whoever waits for a lock gets an error, holders have
/// lost theirs and are told, everything is given back and nothing is locked any more. Waits until the backends have
/// confirmed it, as long as the limit allows. False: not all was confirmed; those locks end by their ttl.
///
/// `exit`, and the return of `main`, do this by themselves, within 1 s and without telling anybody. A process that ends
/// in another way (`_exit`, a signal) leaves its locks to their ttl.
pub fn shutdown(limit: Duration) -> bool {
    end(limit, false)
}

/// The same at the very end of the process: nobody is told, and acquires of other threads stay where they are. Exit
/// handlers of the calling thread may still lock; what they leave is given back in the same way.
pub fn exit(limit: Duration) -> bool {
    end(limit, true)
}

fn end(limit: Duration, silent: bool) -> bool {
    let end = Instant::now().plus(limit);
    runtime::exit::begin(silent);
    let cores = cores();
    if runtime::exit::is_ending() {
        cores.iter().for_each(|core| core.ending.fire());
    }
    let leases = cores.iter().flat_map(|core| core.gate.holders()).collect();
    // Under way, whether or not somebody waits for it.
    drop(Ending::begin(leases, !silent));
    // What answers late must not keep the backends from ending all at once.
    let settled = runtime::exit::drain_until(end.minus(limit / 4));
    // Where nothing ever ran there is nothing to be ended, and no thread to be started for it.
    let ended = |_: &Arc<Core>| runtime::exit::ran() && !mutant!("client-exit-keeps-sessions");
    for core in cores.into_iter().filter(ended) {
        runtime::spawn_pending(async move { core.backend.close().await });
    }
    runtime::exit::drain_until(end) && settled
}

/// All there are in this process.
fn cores() -> Vec<Arc<Core>> {
    let Some(cores) = CORES.peek() else { return Vec::new() };
    let cores = cores.lock().unwrap_or_else(PoisonError::into_inner);
    cores.values().filter_map(Weak::upgrade).collect()
}

/// What every backend of this build can do, by name.
pub(crate) fn capabilities() -> Vec<(&'static str, Capability)> {
    DRIVERS.iter().map(|driver| (driver.name, (driver.capability)())).collect()
}

/// This process's part of every token: `dlock:<host>:<pid>:<128 random bits>`.
pub(crate) fn identity() -> &'static str {
    static IDENTITY: PerProcess<String> = PerProcess::new();
    IDENTITY.get(|| {
        const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
        let mut random = [0; 22];
        getrandom::fill(&mut random).expect("the system has no source of random numbers");
        let text: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect();
        format!("dlock:{}:{}:{text}", host(), std::process::id())
    })
}

/// This host's name, reduced to letters, digits and hyphens, 32 at the most.
pub(crate) fn host() -> &'static str {
    static HOST: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    HOST.get_or_init(|| {
        #[cfg(unix)]
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        #[cfg(not(unix))]
        let name = std::env::var("COMPUTERNAME").unwrap_or_default();
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
        if name.is_empty() { "localhost".to_owned() } else { name }
    })
}
