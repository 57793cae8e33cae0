//! The servers that the run has started for its locks, with a proxy for each worker before each server, and their
//! faults.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock_harness::backends::{BACKENDS, Deployed, Deployment, ServerFault};
use dlock_harness::proxy::{Direction, Mode, Proxy};

use crate::fleet::Fleet;
use crate::nemesis::Nemesis;

/// A function that begins or ends a fault.
type Act = fn(&Proxy);

/// The faults after which a connection can't be used any more.
const ENDS_CONNECTIONS: [&str; 3] = ["cut", "drop-requests", "drop-replies"];

#[derive(Clone)]
pub(crate) struct Server {
    deployed: Arc<dyn Deployed>,
    /// The proxies: for each worker's slot one before each server.
    pub(crate) proxies: Arc<Vec<Vec<Proxy>>>,
}

/// Returns the deployments that words of `--url` start.
pub(crate) fn words() -> impl Iterator<Item = &'static Deployment> {
    BACKENDS.iter().flat_map(|backend| backend.deployments())
}

impl Server {
    /// Starts the deployment of a word. Returns `None` for a word that starts nothing.
    pub(crate) fn start(word: &str, processes: usize) -> Result<Option<Self>, String> {
        let Some(deployment) = words().find(|deployment| deployment.word == word) else { return Ok(None) };
        let deployed = (deployment.start)()?;
        if let Some(version) = deployed.version() {
            println!("{version}");
        }
        let addrs = deployed.addrs();
        let slot = |_| addrs.iter().map(|addr| Proxy::new(*addr)).collect();
        let proxies = (0..processes).map(slot).collect::<Result<_, _>>();
        let proxies = Arc::new(proxies.map_err(|error| error.to_string())?);
        Ok(Some(Self { deployed, proxies }))
    }

    /// Returns true if a network leads to the server.
    pub(crate) fn is_remote(&self) -> bool {
        self.proxies.iter().any(|slot| !slot.is_empty())
    }

    /// Returns the URL without a proxy, and the URL for each worker.
    pub(crate) fn urls(&self) -> (String, Vec<String>) {
        // Each worker's URL begins with another server.
        let of_slot = |(slot, proxies): (usize, &Vec<Proxy>)| {
            let mut addrs: Vec<SocketAddr> = proxies.iter().map(Proxy::addr).collect();
            addrs.rotate_left(slot % proxies.len().max(1));
            self.deployed.url(&addrs)
        };
        (self.deployed.url(&self.deployed.addrs()), self.proxies.iter().enumerate().map(of_slot).collect())
    }

    pub(crate) fn faults(&self) -> Vec<Box<dyn Nemesis>> {
        let of_proxies: [(_, Act, Act); 7] = [
            ("cut", cut, |_| {}),
            ("refuse", |proxy| proxy.refuse(true), |proxy| proxy.refuse(false)),
            ("drop-requests", |proxy| proxy.set(Direction::ToServer, Mode::Drop), heal),
            ("drop-replies", |proxy| proxy.set(Direction::ToClient, Mode::Drop), heal),
            ("hold-requests", |proxy| proxy.set(Direction::ToServer, Mode::Hold), |proxy| proxy.both(Mode::Pass)),
            ("hold-replies", |proxy| proxy.set(Direction::ToClient, Mode::Hold), |proxy| proxy.both(Mode::Pass)),
            ("delay", |proxy| proxy.both(Mode::Delay(Duration::from_millis(30))), |proxy| proxy.both(Mode::Pass)),
        ];
        let mut all: Vec<Box<dyn Nemesis>> = Vec::new();
        let outlives = self.deployed.outlives_connections();
        let fits = |(name, ..): &(&str, Act, Act)| self.is_remote() && (outlives || !ENDS_CONNECTIONS.contains(name));
        for (name, begin, end) in of_proxies.into_iter().filter(fits) {
            all.push(Box::new(OfProxy { name, begin, end, server: self.clone(), at: 0, one: None }));
        }
        all.extend(self.deployed.clone().faults().into_iter().map(|fault| Box::new(OfServers(fault)) as _));
        all
    }
}

fn cut(proxy: &Proxy) {
    proxy.cut();
}

/// Ends a fault that loses bytes. A connection that has lost bytes can't be used any more, so it is cut.
fn heal(proxy: &Proxy) {
    proxy.cut();
    proxy.both(Mode::Pass);
}

/// A fault of one worker's connections: to all servers, or to one of several.
struct OfProxy {
    name: &'static str,
    begin: Act,
    end: Act,
    server: Server,
    at: usize,
    one: Option<usize>,
}

impl OfProxy {
    fn each(&self, act: Act) {
        let proxies = self.server.proxies[self.at].iter().enumerate();
        proxies.filter(|(n, _)| self.one.is_none_or(|one| one == *n)).for_each(|(_, proxy)| act(proxy));
    }
}

impl Nemesis for OfProxy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn choose(&mut self, _: &Fleet, rng: &mut fastrand::Rng) -> Result<String, String> {
        self.at = rng.usize(..self.server.proxies.len());
        let several = self.server.proxies[self.at].len();
        self.one = (several > 1 && rng.bool()).then(|| rng.usize(..several));
        Ok(format!("proxy-{}{}", self.at, self.one.map(|one| format!(".{one}")).unwrap_or_default()))
    }

    fn begin(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        self.each(self.begin);
        Ok(())
    }

    fn end(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        self.each(self.end);
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.name == "cut"
    }
}

/// A fault of the servers, which affects all workers.
struct OfServers(Box<dyn ServerFault>);

impl Nemesis for OfServers {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn choose(&mut self, _: &Fleet, rng: &mut fastrand::Rng) -> Result<String, String> {
        self.0.choose(rng)
    }

    fn begin(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        self.0.begin()
    }

    fn end(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        self.0.end()
    }

    fn is_short(&self) -> bool {
        self.0.is_short()
    }
}
