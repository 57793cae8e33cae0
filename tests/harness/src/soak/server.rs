//! A server, or several, each with a proxy before it for each worker, and what is done to them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock_harness::proxy::{Direction, Mode, Proxy};
use dlock_harness::server::{Cluster, Etcd, EtcdOptions, Redis, RedisOptions};

use crate::cluster;
use crate::fleet::Fleet;
use crate::nemesis::{Nemesis, locked};

/// Does or undoes a fault.
type Act<T> = fn(&T);

/// The servers there are, by the word that starts them.
pub(crate) enum Tested {
    Redis(Redis),
    Etcd(Etcd),
    Cluster(Mutex<Cluster>),
}

#[derive(Clone)]
pub(crate) struct Server {
    tested: Arc<Tested>,
    /// For each worker's slot one before each server.
    pub(crate) proxies: Arc<Vec<Vec<Proxy>>>,
}

impl Server {
    /// `None` for a word that starts none.
    pub(crate) fn start(word: &str, processes: usize) -> Result<Option<Self>, String> {
        let tested = match word {
            "redis" => Tested::Redis(Redis::start(&RedisOptions::new())?),
            "etcd" => Tested::Etcd(Etcd::start(&EtcdOptions::new())?),
            "etcd3" => Tested::Cluster(Mutex::new(Cluster::start(3, &EtcdOptions::new())?)),
            _ => return Ok(None),
        };
        if let Some(version) = tested.version() {
            println!("etcd {version}");
        }
        let addrs = tested.addrs();
        let slot = |_| addrs.iter().map(|addr| Proxy::new(*addr)).collect();
        let proxies = (0..processes).map(slot).collect::<Result<_, _>>();
        let proxies = Arc::new(proxies.map_err(|error| error.to_string())?);
        Ok(Some(Self { tested: Arc::new(tested), proxies }))
    }

    /// Where it is without a proxy, and for each worker.
    pub(crate) fn urls(&self) -> (String, Vec<String>) {
        let at = |addrs: Vec<SocketAddr>| {
            let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
            format!("{}://{}", self.tested.scheme(), addrs.join(","))
        };
        // Each begins with another server.
        let of_slot = |(slot, proxies): (usize, &Vec<Proxy>)| {
            let mut addrs: Vec<_> = proxies.iter().map(Proxy::addr).collect();
            addrs.rotate_left(slot % proxies.len());
            at(addrs)
        };
        (at(self.tested.addrs()), self.proxies.iter().enumerate().map(of_slot).collect())
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
            Tested::Etcd(_) => {
                vec![pause, ("compaction", Tested::compact, |_| {}), (cluster::REMOVAL, Tested::remove_waiter, |_| {})]
            }
            Tested::Cluster(_) => vec![],
        };
        let mut all: Vec<Box<dyn Nemesis>> = Vec::new();
        for (name, begin, end) in of_proxies {
            all.push(Box::new(OfProxy { name, begin, end, server: self.clone(), at: 0, one: None }));
        }
        for (name, begin, end) in of_servers {
            all.push(Box::new(OfServer { name, begin, end, server: self.clone() }));
        }
        if let Tested::Cluster(_) = &*self.tested {
            all.extend(cluster::faults(&self.tested));
        }
        all
    }
}

impl Tested {
    fn addrs(&self) -> Vec<SocketAddr> {
        match self {
            Self::Redis(redis) => vec![redis.addr()],
            Self::Etcd(etcd) => vec![etcd.addr()],
            Self::Cluster(cluster) => locked(cluster).members.iter().map(Etcd::addr).collect(),
        }
    }

    fn scheme(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Etcd(_) | Self::Cluster(_) => "etcd",
        }
    }

    fn version(&self) -> Option<String> {
        match self {
            Self::Redis(_) => None,
            Self::Etcd(etcd) => Some(etcd.version()),
            Self::Cluster(cluster) => Some(locked(cluster).members[0].version()),
        }
    }

    fn pause(&self) {
        match self {
            Self::Redis(redis) => redis.pause(),
            Self::Etcd(etcd) => etcd.pause(),
            Self::Cluster(_) => {}
        }
    }

    fn resume(&self) {
        match self {
            Self::Redis(redis) => redis.resume(),
            Self::Etcd(etcd) => etcd.resume(),
            Self::Cluster(_) => {}
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

    fn remove_waiter(&self) {
        if let Self::Etcd(etcd) = self {
            cluster::remove_waiter(etcd).expect("etcdctl works");
        }
    }

    fn compact(&self) {
        if let Self::Etcd(etcd) = self {
            etcd.compact();
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

/// Something done to one worker's connections: to all servers, or to one of several.
struct OfProxy {
    name: &'static str,
    begin: Act<Proxy>,
    end: Act<Proxy>,
    server: Server,
    at: usize,
    one: Option<usize>,
}

impl OfProxy {
    fn each(&self, act: Act<Proxy>) {
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

    fn choose(&mut self, _: &Fleet, _: &mut fastrand::Rng) -> Result<String, String> {
        Ok("server".to_owned())
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
