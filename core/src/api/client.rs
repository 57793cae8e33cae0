//! A client: one backend and what this process shares for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::{self, Instant};
use crate::config::Config;
use crate::contract::{AcquireOptions, Capabilities, ContenderInfo, owner};
#[cfg(feature = "testing")]
use crate::contract::{Backend, Context};
use crate::drivers::{connect, unsupported};
use crate::engine::Engine;
use crate::engine::release::Ending;
use crate::engine::resource::Handle;
use crate::error::{Error, Kind, Result};
use crate::runtime::cancel::CancelToken;
use crate::runtime::op::Op;

/// A handle on one backend. Clients of equal configuration share everything: connection, local queue, watchdog.
///
/// In a child of fork it connects anew on first use. Dropping the last clone ends nothing: leases and acquires go on.
/// At the end of the process ([`shutdown`](crate::shutdown)) all that is held is given back.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    /// The ttl of a lock for which none is given.
    ttl: Duration,
    engine: ArcSwap<Engine>,
    handle: Handle,
}

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
        Ok(Self::of(Engine::of(&config, |context| connect(&config, context))?))
    }

    /// A client that shares nothing.
    #[cfg(feature = "testing")]
    pub(crate) fn unshared(
        config: Config,
        make: impl FnOnce(Context) -> Result<(Arc<dyn Backend>, Capabilities)>,
    ) -> Result<Self> {
        Engine::new(config, make).map(Self::of)
    }

    fn of(engine: Engine) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = engine.shared().config.clone();
        let handle = Handle { id, closed: CancelToken::default() };
        let ttl = config.default_ttl();
        Self(Arc::new(Inner { config, ttl, engine: ArcSwap::from_pointee(engine), handle }))
    }

    /// The contenders of the key: the holder first, then those that wait. What can't be found out is `None`.
    pub fn contenders(&self, key: &str) -> Op<Vec<ContenderInfo>> {
        self.call(key, |engine, name| async move { engine.contenders(&name).await })
    }

    /// Takes the lock away from its holder. True: there was one. A holder in this process learns of it at once,
    /// whichever client it is of. Another one learns of it at its next exchange with the backend at the latest, so only
    /// its fencing token guards what it does until then.
    pub fn break_lock(&self, key: &str) -> Op<bool> {
        self.call(key, |engine, name| async move {
            let broken = engine.shared().backend.break_lock(&name).await;
            // Without an answer it may be broken.
            let in_doubt = broken.is_err() && !mutant!("client-break-in-doubt-believed-undone");
            if in_doubt || matches!(broken, Ok(true)) {
                engine.suspect_everywhere(&name);
            }
            broken
        })
    }

    /// Checks that the backend answers.
    pub fn ping(&self) -> Op<()> {
        self.ask(|engine| async move { engine.shared().backend.ping().await })
    }

    /// Checks that the backend answers, and returns what keeps its locks from what they promise: one text for each
    /// finding, with the remedy. Empty: nothing was found.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub fn diagnose(&self) -> Op<Vec<String>> {
        self.ask(|engine| async move { engine.shared().backend.diagnose().await })
    }

    /// The keys that begin with this prefix and are held or waited for by any process, in their order. The prefix of
    /// the configuration stands before it and isn't part of the keys.
    ///
    /// # Errors
    /// `Unsupported` where the backend can't find them; `Backend`, `Invalid` for a closed client.
    pub fn list(&self, prefix: &str) -> Op<Vec<String>> {
        let ours = self.0.config.prefix().unwrap_or_default().to_owned();
        let prefix = format!("{ours}{prefix}");
        self.ask(move |engine| async move {
            let names = engine.shared().backend.list(&prefix).await;
            let names = names.map_err(|error| error.with_backend(engine.shared().name()))?;
            let mut keys: Vec<_> =
                names.iter().filter_map(|name| name.strip_prefix(&ours)).map(str::to_owned).collect();
            keys.sort_unstable();
            Ok(keys)
        })
    }

    /// Ends this handle: its waiters get an error, its leases are lost to their holders, who are told, and then given
    /// back. Idempotent. Other handles of the same configuration are not concerned.
    ///
    /// # Errors
    /// `Backend`, temporary, when a release isn't confirmed within the limit; it goes on in the background.
    pub fn close(&self, limit: Duration) -> Op<()> {
        self.0.handle.closed.cancel();
        let engine = self.0.engine.load_full();
        if engine.is_inherited() {
            return Op::ready(Ok(()));
        }
        let id = self.0.handle.id;
        let tenures = engine.tenures().into_iter().filter(|tenure| tenure.handle == id).collect();
        let Some(ended) = Ending::begin(tenures, true) else {
            return Op::ready(Ok(()));
        };
        Op::detached(None, async move {
            tokio::select! {
                biased;
                done = ended.confirmed() => done,
                () = clock::sleep(limit) => Err(Error::unavailable(format!(
                    "not every lock was confirmed as released within {limit:?}; they end by their ttl"
                ))),
            }
        })
    }

    /// Returns true if this handle was closed: every call by it fails.
    pub fn is_closed(&self) -> bool {
        self.0.handle.closed.is_cancelled()
    }

    /// The backend's name.
    pub fn backend(&self) -> &'static str {
        self.0.config.schema().name
    }

    /// Returns what the backend can do and promises.
    pub fn capabilities(&self) -> Capabilities {
        self.0.engine.load().shared().capabilities.clone()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Returns the name of this process's clients of the same configuration in the backend's queue and at the beginning
    /// of their tokens: `dlock:<host>:<pid>:<128 random bits>:<number>`. Another one in a child of fork.
    ///
    /// # Errors
    /// `Invalid` when the client was closed.
    pub fn identity(&self) -> Result<String> {
        Ok(owner::contender(self.engine()?.shared().number))
    }

    /// Returns the keys that this process holds (true) and waits for (false).
    ///
    /// # Errors
    /// `Invalid` when the client was closed.
    pub fn query(&self) -> Result<Vec<(String, bool)>> {
        Ok(self.engine()?.query())
    }

    /// Returns the ttl of a lock for which none is given.
    pub(crate) fn default_ttl(&self) -> Duration {
        self.0.ttl
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Another handle on the same; this one where it was closed.
    pub(crate) fn another(&self) -> Result<Self> {
        if self.is_closed() { Ok(self.clone()) } else { Ok(Self::of(Engine::clone(&*self.engine()?))) }
    }

    /// Returns what is shared in this process: made anew in a child of fork.
    ///
    /// # Errors
    /// `Invalid` when the client was closed; `Unsupported` for a backend that no child of fork can use.
    pub(crate) fn engine(&self) -> Result<Arc<Engine>> {
        if self.is_closed() {
            return Err(Error::new(Kind::Invalid, "the client was closed; connect again").with_backend(self.backend()));
        }
        let engine = self.0.engine.load_full();
        if !engine.is_inherited() {
            return Ok(engine);
        }
        if !engine.shared().capabilities.fork {
            return Err(unsupported(self.backend(), "a client in a forked child whose parent used it", |c| c.fork));
        }
        let config = &self.0.config;
        let fresh = Arc::new(Engine::of(config, |context| connect(config, context))?);
        // The parent's is leaked: what it leads to may be locked for ever.
        std::mem::forget(self.0.engine.swap(fresh.clone()));
        std::mem::forget(engine);
        Ok(fresh)
    }

    /// Asks the backend of this process.
    fn ask<T, F>(&self, work: impl FnOnce(Arc<Engine>) -> F) -> Op<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match self.engine() {
            Ok(engine) => exchange(engine, work),
            Err(error) => Op::ready(Err(error)),
        }
    }

    fn call<T, F>(&self, key: &str, work: impl FnOnce(Arc<Engine>, Arc<str>) -> F) -> Op<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let checked = AcquireOptions::new(key).check(self.backend(), &self.capabilities());
        let ready = checked.and_then(|()| self.engine()).and_then(|engine| Ok((engine.name_of(key)?, engine)));
        match ready {
            Ok((name, engine)) => exchange(engine, |engine| work(engine, name)),
            Err(error) => Op::ready(Err(error.with_key(key).with_backend(self.backend()))),
        }
    }
}

/// A call that asks the backend, within its time.
fn exchange<T, F>(engine: Arc<Engine>, work: impl FnOnce(Arc<Engine>) -> F) -> Op<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (shared, work) = (engine.shared().clone(), work(engine));
    Op::detached(Some(shared.connect_timeout()), async move {
        let asked = Instant::now();
        let answer = work.await;
        shared.answered(asked, &answer);
        answer
    })
}

/// In a child of fork the parent's engine is leaked: what it leads to may be locked for ever.
impl Drop for Inner {
    fn drop(&mut self) {
        let engine = self.engine.load_full();
        if engine.is_inherited() {
            std::mem::forget(engine);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.config.url()).finish()
    }
}
