//! A Redis server with a proxy before it for each worker, and what is done to them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock_harness::proxy::{Direction, Mode, Proxy};
use dlock_harness::server::{Redis, RedisOptions};

use crate::fleet::Fleet;
use crate::nemesis::Nemesis;

/// Does or undoes a fault.
type Act<T> = fn(&T);

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) redis: Arc<Redis>,
    /// One for each worker's slot.
    pub(crate) proxies: Arc<Vec<Proxy>>,
}

impl Server {
    pub(crate) fn start(processes: usize) -> Result<Self, String> {
        let redis = Redis::start(&RedisOptions::new())?;
        let proxies = (0..processes).map(|_| Proxy::new(redis.addr())).collect::<Result<_, _>>();
        Ok(Self { redis: Arc::new(redis), proxies: Arc::new(proxies.map_err(|error| error.to_string())?) })
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
        let of_servers: [(_, Act<Redis>, Act<Redis>); 3] = [
            ("server-pause", Redis::pause, Redis::resume),
            ("script-flush", |redis| drop(redis.command(&["SCRIPT", "FLUSH"])), |_| {}),
            (
                "client-kill",
                |redis| drop(redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
                |_| {},
            ),
        ];
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
    begin: Act<Redis>,
    end: Act<Redis>,
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
        (self.begin)(&self.server.redis);
        Ok(())
    }

    fn end(&mut self, _: &Mutex<Fleet>) -> Result<(), String> {
        (self.end)(&self.server.redis);
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.name != "server-pause"
    }
}
