//! The engine: it acquires, keeps and gives back locks, the same on every backend.
//!
//! [`Engine`] is what all clients of one configuration share in one process.

pub(crate) mod acquire;
mod contenders;
mod gate;
mod outage;
mod probe;
mod refusal;
pub(crate) mod release;
mod renewal;
pub(crate) mod resource;
mod shared;
pub(crate) mod status;
pub(crate) mod tenure;
mod timer;
mod validity;
mod wait_loop;
mod watchdog;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use self::gate::Gate;
use self::release::Ending;
use self::resource::Resource;
use self::shared::Shared;
use self::tenure::Tenure;
use self::timer::Timer;
use crate::clock::Instant;
use crate::config::Config;
use crate::contract::{Backend, Capabilities, ContenderInfo, Context, Observer, Suspects};
use crate::error::Result;
use crate::observe::event;
use crate::runtime::{self, PerProcess, exit, lock};

/// The part that the clients of one configuration share in one process: the backend, the gate with its leases, and the
/// watchdog.
///
/// It lives as long as a client, a call or a lease of it.
#[derive(Clone)]
pub(crate) struct Engine {
    gate: Arc<Gate<Tenure>>,
}

type Engines = Mutex<HashMap<Config, Weak<Gate<Tenure>>>>;

static ENGINES: PerProcess<Engines> = PerProcess::new();

/// The receiver of a backend's reports.
struct Reports {
    backend: &'static str,
    /// Set once the backend is there.
    gate: OnceLock<Weak<Gate<Tenure>>>,
}

impl Observer for Reports {
    fn suspect(&self, of: Suspects<'_>) {
        let Some(gate) = self.gate.get().and_then(Weak::upgrade) else { return };
        match of {
            Suspects::Name(name) => suspect(&gate, name),
            Suspects::Session(session) => {
                let all = gate.suspects().into_iter();
                all.filter(|tenure| tenure.grant.session() == Some(session)).for_each(|tenure| tenure.suspect());
            }
        }
    }

    fn warn(&self, note: &str) {
        event::warn(self.backend, note);
    }
}

fn suspect(gate: &Arc<Gate<Tenure>>, name: &str) {
    if let Some(queue) = gate.find(name) {
        queue.suspects().iter().for_each(|tenure| tenure.suspect());
    }
}

impl Engine {
    /// Makes an engine that shares nothing with other clients.
    ///
    /// # Errors
    /// Those of `connect`.
    pub(crate) fn new(
        config: Config,
        connect: impl FnOnce(Context) -> Result<(Arc<dyn Backend>, Capabilities)>,
    ) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        exit::at_end(|limit| {
            exit(limit);
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let reports = Arc::new(Reports { backend: config.schema().name, gate: OnceLock::new() });
        let (backend, capabilities) = connect(Context::new(number, reports.clone()))?;
        let timer = Arc::new(Timer::new());
        let gate = Arc::new(Gate::new(Arc::new(Shared::new(number, config, backend, capabilities, timer.clone()))));
        let weak = Arc::downgrade(&gate);
        // Both are new, and set once.
        let _ = reports.gate.set(weak.clone());
        timer.on_start(move || runtime::spawn(watchdog::run(weak.clone())));
        Ok(Self { gate })
    }

    /// The engine of this configuration, made now if there is none in this process.
    ///
    /// # Errors
    /// Those of `connect`.
    pub(crate) fn of(
        config: &Config,
        connect: impl FnOnce(Context) -> Result<(Arc<dyn Backend>, Capabilities)>,
    ) -> Result<Self> {
        let mut engines = lock(ENGINES.get(Mutex::default));
        if let Some(gate) = engines.get(config).and_then(Weak::upgrade) {
            return Ok(Self { gate });
        }
        let engine = Self::new(config.clone(), connect)?;
        engines.retain(|_, gate| gate.strong_count() > 0);
        engines.insert(config.clone(), Arc::downgrade(&engine.gate));
        Ok(engine)
    }

    /// Returns true if it was made before this process was forked. Then it is leaked: what it leads to may be locked
    /// for ever.
    pub(crate) fn is_inherited(&self) -> bool {
        self.gate.shared.epoch != runtime::epoch()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.gate.shared
    }

    /// The backend's name of a user's key.
    ///
    /// # Errors
    /// `Invalid` for a key that the backend can't carry.
    pub(crate) fn name_of(&self, key: &str) -> Result<Arc<str>> {
        let backend = &self.shared().backend;
        let name = match self.shared().config.prefix() {
            None => backend.name_of(key),
            Some(prefix) => backend.name_of(&format!("{prefix}{key}")),
        };
        name.map(Into::into)
    }

    /// The key of this name of the backend's.
    pub(crate) fn resource(&self, name: &Arc<str>) -> Resource {
        Resource::new(&self.gate, name)
    }

    /// The user's keys that this process holds (true) and waits for (false).
    pub(crate) fn query(&self) -> Vec<(String, bool)> {
        self.gate.query()
    }

    /// Every lease whose release isn't confirmed yet.
    pub(crate) fn tenures(&self) -> Vec<Arc<Tenure>> {
        self.gate.holders()
    }

    /// All contenders of a name of the backend's, holder first.
    ///
    /// # Errors
    /// Those of asking the backend.
    pub(crate) async fn contenders(&self, name: &str) -> Result<Vec<ContenderInfo>> {
        contenders::all(&self.gate, name).await
    }

    /// Renews the lease that is held under this name of the backend's at once, whichever client of this process has it.
    pub(crate) fn suspect_everywhere(&self, name: &str) {
        suspect(&self.gate, name);
        if mutant!("client-break-told-to-its-own") {
            return;
        }
        for other in all() {
            if !Arc::ptr_eq(&other.gate, &self.gate) && other.may_share(self) {
                suspect(&other.gate, name);
            }
        }
    }

    /// Returns true if both may lead to the same locks: a server may have many addresses, a directory many names.
    fn may_share(&self, other: &Self) -> bool {
        let (one, two) = (self.shared(), other.shared());
        let place = |shared: &Shared| (shared.config.schema().authority)(shared.config.values());
        one.name() == two.name() && (one.capabilities.processes || place(one) == place(two))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn find(&self, name: &str) -> Option<Arc<gate::KeyQueue<Tenure>>> {
        self.gate.find(name)
    }
}

/// All engines of this process.
fn all() -> Vec<Engine> {
    let Some(engines) = ENGINES.peek() else { return Vec::new() };
    lock(engines).values().filter_map(Weak::upgrade).map(|gate| Engine { gate }).collect()
}

/// The orderly end of this process's part: all clients are closed. Acquires that wait for a lock get an error, holders
/// have lost their locks and learn of it, everything is given back and nothing is locked any more. Waits until the
/// backends have confirmed it, as long as the limit allows. False: not all was confirmed; those locks end by their ttl.
///
/// `exit`, and the return of `main`, do this by themselves, within 1 s and with no report to anybody. A process that
/// ends in another way (`_exit`, a signal) leaves its locks to their ttl.
pub fn shutdown(limit: Duration) -> bool {
    end(limit, false)
}

/// The same at the very end of the process: nothing is reported, and acquires of other threads stay where they are.
/// Exit handlers of the calling thread may still lock; what they leave is given back in the same way.
pub fn exit(limit: Duration) -> bool {
    end(limit, true)
}

fn end(limit: Duration, silent: bool) -> bool {
    let end = Instant::now().plus(limit);
    exit::begin(silent);
    let engines = all();
    if exit::is_ending() {
        engines.iter().for_each(|engine| engine.shared().ending.cancel());
    }
    let tenures = engines.iter().flat_map(Engine::tenures).collect();
    // Under way, whether or not somebody waits for it.
    drop(Ending::begin(tenures, !silent));
    // A late answer must not keep the backends from ending all at once.
    let done = runtime::drain_until(end.minus(limit / 4));
    // Where nothing ever ran there is nothing to be ended, and no thread to be started for it.
    if runtime::ran() && !mutant!("client-exit-keeps-sessions") {
        for engine in engines {
            let shared = engine.shared().clone();
            runtime::spawn_tracked(async move { shared.backend.close().await });
        }
    }
    runtime::drain_until(end) && done
}
