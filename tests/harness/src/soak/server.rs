//! A server with a proxy before it for each worker, and what is done to them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock_harness::proxy::{Direction, Mode, Proxy};
use dlock_harness::server::{Etcd, EtcdOptions, Redis, RedisOptions};

use crate::fleet::Fleet;
use crate::nemesis::Nemesis;

/// Does or undoes a fault.
type Act<T> = fn(&T);

/// The servers there are, by the word that starts them.
pub(crate) enum Tested {
    Redis(Redis),
    Etcd(Etcd),
}

#[derive(Clone)]
pub(crate) struct Server {
    tested: Arc<Tested>,
    /// One for each worker's slot.
    pub(crate) proxies: Arc<Vec<Proxy>>,
}

impl Server {
    /// `None` for a word that starts none.
    pub(crate) fn start(word: &str, processes: usize) -> Result<Option<Self>, String> {
        let tested = match word {
            "redis" => Tested::Redis(Redis::start(&RedisOptions::new())?),
            "etcd" => Tested::Etcd(Etcd::start(&EtcdOptions::new())?),
            _ => return Ok(None),
        };
        let proxies = (0..processes).map(|_| Proxy::new(tested.addr())).collect::<Result<_, _>>();
        let proxies = Arc::new(proxies.map_err(|error| error.to_string())?);
        Ok(Some(Self { tested: Arc::new(tested), proxies }))
    }

    /// Where it is without a proxy, and for each worker.
    pub(crate) fn urls(&self) -> (String, Vec<String>) {
        let at = |addr| format!("{}://{addr}", self.tested.scheme());
        (at(self.tested.addr()), self.proxies.iter().map(|proxy| at(proxy.addr())).collect())
    }

    pub(crate) fn faults(&self) -> Vec<Box<dyn Nemesis>> {
        let of_proxies: [(_, Act<Proxy>, Act<Proxy>); 7] = [
            ("cut", cut, |_| {}),
            ("refuse", |proxy| proxy.refuse(true), |proxy| proxy.refuse(false)),
            ("drop-requests", |proxy| proxy.set(Direction::ToServer, Mode::Drop), heal),
            ("drop-replies", |proxy| proxy.set(Direction::ToClient, Mode::Drop), heal),
            ("hold-requests", |proxy| proxy.set(Direction::ToServer, Mode::Hold), |proxy| proxy.both(Mode::Pass)),
            ("hold-replies", |proxy| proxy.set(Direction::ToClient, Mode::Hold), |proxy| proxy.both(Mode::Pass)),
            ("delay", |proxy| proxy.both(Mode::Delay(Duration::from_millis(30))), |proxy| proxy.both(Mode::Pass)),
        ];
        let pause: (_, Act<Tested>, Act<Tested>) = ("server-pause", Tested::pause, Tested::resume);
        let of_servers = match &*self.tested {
            Tested::Redis(_) => {
                vec![pause, ("script-flush", Tested::flush, |_| {}), ("client-kill", Tested::kill_clients, |_| {})]
            }
            Tested::Etcd(_) => vec![pause, ("compaction", Tested::compact, |_| {})],
        };
        let mut all: Vec<Box<dyn Nemesis>> = Vec::new();
        for (name, begin, end) in of_proxies {
            all.push(Box::new(OfProxy { name, begin, end, server: self.clone(), at: 0 }));
        }
        for (name, begin, end) in of_servers {
            all.push(Box::new(OfServer { name, begin, end, server: self.clone() }));
        }
        all
    }
}

impl Tested {
    fn addr(&self) -> SocketAddr {
        match self {
            Self::Redis(redis) => redis.addr(),
            Self::Etcd(etcd) => etcd.addr(),
        }
    }

    fn scheme(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Etcd(_) => "etcd",
        }
    }

    fn pause(&self) {
        match self {
            Self::Redis(redis) => redis.pause(),
            Self::Etcd(etcd) => etcd.pause(),
        }
    }

    fn resume(&self) {
        match self {
            Self::Redis(redis) => redis.resume(),
            Self::Etcd(etcd) => etcd.resume(),
        }
    }

    fn command(&self, words: &[&str]) {
        if let Self::Redis(redis) = self {
            redis.command(words);
        }
    }

    fn flush(&self) {
        self.command(&["SCRIPT", "FLUSH"]);
    }

    fn kill_clients(&self) {
        self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }

    fn compact(&self) {
        if let Self::Etcd(etcd) = self {
            etcd.ctl(&["compact", &etcd.figure("etcd_debugging_mvcc_current_revision").to_string()]);
        }
    }
}

fn cut(proxy: &Proxy) {
    proxy.cut();
}

/// Of a connection that has lost bytes nothing can be made any more.
fn heal(proxy: &Proxy) {
    proxy.cut();
    proxy.both(Mode::Pass);
}

/// Something done to one worker's connections.
struct OfProxy {
    name: &'static str,
    begin: Act<Proxy>,
    end: Act<Proxy>,
    server: Server,
    at: usize,
}

impl Nemesis for OfProxy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn choose(&mut self, _: &Fleet, rng: &mut fastrand::Rng) -> String {
        self.at = rng.usize(..self.server.proxies.len());
        format!("proxy-{}", self.at)
    }

    fn begin(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        (self.begin)(&self.server.proxies[self.at]);
        Ok(())
    }

    fn end(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        (self.end)(&self.server.proxies[self.at]);
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.name == "cut"
    }
}

/// Something done to the server, and so to all.
struct OfServer {
    name: &'static str,
    begin: Act<Tested>,
    end: Act<Tested>,
    server: Server,
}

impl Nemesis for OfServer {
    fn name(&self) -> &'static str {
        self.name
    }

    fn choose(&mut self, _: &Fleet, _: &mut fastrand::Rng) -> String {
        "server".to_owned()
    }

    fn begin(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        (self.begin)(&self.server.tested);
        Ok(())
    }

    fn end(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        (self.end)(&self.server.tested);
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.name != "server-pause"
    }
}
