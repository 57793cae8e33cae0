//! The place of a run's locks, with its faults.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dlock::Client;
use dlock_harness::backends::{self, TestBackend};
use dlock_harness::history::{Line, Phase, Verb, now};

use crate::nemesis::Nemesis;
use crate::server::Server;

/// The counter of calls whose caller doesn't know whether they were done.
pub(crate) const RARE: &str = "unknown outcomes";

/// The number of faults from which on chance doesn't leave them out: of 50 faults of etcd about 2 have such a call.
pub(crate) const FAULTS_FOR_RARE: u64 = 300;

pub(crate) struct Place {
    backend: &'static dyn TestBackend,
    /// The server, if this run has started one.
    server: Option<Server>,
    urls: Vec<String>,
    /// The keys that all workers share.
    pub(crate) keys: Vec<String>,
    /// A client that no fault affects.
    client: Client,
}

impl Place {
    pub(crate) fn new(url: &str, processes: usize, keys: usize) -> Result<Self, String> {
        let server = Server::start(url, processes)?;
        let (url, urls) = match &server {
            None => (url.to_owned(), vec![url.to_owned()]),
            Some(server) => server.urls(),
        };
        let client = Client::connect(&url).map_err(|error| error.to_string())?;
        client.ping().wait().map_err(|error| error.to_string())?;
        if !client.capabilities().processes {
            return Err(format!("{url}: its locks don't exclude other processes"));
        }
        // The keys belong to this run alone, so that several runs can go on at the same time.
        let mark = format!("soak-{}-{}", std::process::id(), now());
        let keys = (0..keys.max(1)).map(|number| format!("{mark}-{number}")).collect();
        Ok(Self { backend: backends::of_url(client.backend(), &url)?, server, urls, keys, client })
    }

    /// Returns the URL for the worker in this slot.
    pub(crate) fn url(&self, at: usize) -> String {
        self.urls[at % self.urls.len()].clone()
    }

    /// Returns the longest time of a call without a deadline.
    pub(crate) fn patience_ms(&self) -> u64 {
        let longest = self.client.config().connect_timeout().max(Duration::from_secs(5));
        u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the faults other than those of the workers.
    pub(crate) fn faults(&self) -> Vec<Box<dyn Nemesis>> {
        self.server.as_ref().map_or(Vec::new(), Server::faults)
    }

    /// Returns the shortest ttl of the backend.
    pub(crate) fn min_ttl(&self) -> Duration {
        self.client.capabilities().min_ttl
    }

    /// Returns the time for which a lock may be free while somebody waits for it.
    pub(crate) fn recovery(&self, ttl: Duration) -> Duration {
        // A waiter may get the lock without noticing. Then it keeps the lock for a ttl of its own.
        let more = if self.client.capabilities().local { Duration::ZERO } else { ttl };
        self.backend.outlives(ttl) + more + Duration::from_secs(2)
    }

    /// Returns the counters without which a run proves nothing. `plain`: workers only acquire and release.
    pub(crate) fn required(&self, faults: u64, plain: bool) -> Vec<String> {
        let mut required = vec!["contended acquires".to_owned()];
        if !plain {
            let losses = ["expiries while held", "stale releases", "stale renews", "loss reports"];
            let ends = ["drops", "cancelled acquires", "timed-out acquires", "busy tries"];
            required.extend(losses.into_iter().chain(ends).map(str::to_owned));
        }
        let kinds = self.faults();
        let round = kinds.len() as u64 + 2;
        if faults >= round {
            required.extend(["fault stop", "fault kill"].map(str::to_owned));
            required.extend(kinds.iter().map(|kind| format!("fault {}", kind.name())));
        }
        // In fewer rounds, chance may leave these out.
        if faults >= 4 * round {
            let remote = self.server.iter().filter(|server| server.is_remote());
            required.extend(remote.map(|_| "reconnects".to_owned()));
        }
        if faults >= FAULTS_FOR_RARE {
            let remote = self.server.iter().filter(|server| server.is_remote());
            required.extend(remote.map(|_| RARE.to_owned()));
        }
        required
    }

    /// Asks the server again and again for the owners of the keys, if it knows them.
    pub(crate) fn sample(&self, path: &Path, over: &AtomicBool) -> Result<(), String> {
        if self.client.capabilities().local {
            return Ok(());
        }
        let mut file = std::fs::File::create(path).map_err(|error| error.to_string())?;
        let proxies: Vec<_> = self.server.iter().flat_map(|server| server.proxies.iter().flatten()).collect();
        let mut opened = vec![1; proxies.len()];
        while !over.load(Ordering::Acquire) {
            for (number, opened) in opened.iter_mut().enumerate() {
                let now_opened = proxies[number].counts().opened;
                for _ in *opened..now_opened {
                    let (p, f, ph) = (format!("proxy-{number}").into(), Some(Verb::Reconnect), Some(Phase::Ok));
                    let line = Line { t: now(), p, f, ph, ..Line::default() };
                    file.write_all(line.text().as_bytes()).map_err(|error| error.to_string())?;
                }
                *opened = now_opened.max(*opened);
            }
            for key in &self.keys {
                let t = now();
                let Ok(contenders) = self.client.contenders(key).wait() else { continue };
                let owner = contenders.iter().find(|contender| contender.held);
                let Some(tok) = owner.map_or(Some(String::new()), |owner| owner.token.clone()) else { continue };
                let (k, tok, srv) = (key.as_str().into(), tok.into(), "owner".into());
                let line = Line { t, t2: now(), k, tok, srv, ..Line::default() };
                file.write_all(line.text().as_bytes()).map_err(|error| error.to_string())?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Returns the keys that still have a contender after all workers have ended and the ttl has passed.
    pub(crate) fn leftovers(&self, ttl: Duration) -> Result<Vec<String>, String> {
        let end = Instant::now() + self.backend.outlives(ttl) + Duration::from_secs(1);
        loop {
            let mut left = Vec::new();
            for key in &self.keys {
                if !self.client.contenders(key).wait().map_err(|error| error.to_string())?.is_empty() {
                    left.push(key.clone());
                }
            }
            if left.is_empty() || Instant::now() >= end {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
