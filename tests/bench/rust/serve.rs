//! A server for the run, and a proxy in front of it that delays: until the input ends.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use dlock_harness::proxy::{Mode, Proxy};
use dlock_harness::server::{Etcd, EtcdOptions, Redis, RedisOptions};

use crate::Outcome;

/// How much later everything arrives through the proxy, each way.
const DELAY: Duration = Duration::from_micros(500);

pub(crate) fn serve(backend: &str) -> Outcome<()> {
    match backend {
        "redis" => {
            let server = Redis::start(&RedisOptions::new())?;
            served(&server.url(), server.addr())
        }
        "etcd" => {
            let server = Etcd::start(&EtcdOptions::new())?;
            served(&server.url(), server.addr())
        }
        _ => Err("serve redis|etcd".into()),
    }
}

fn served(url: &str, addr: SocketAddr) -> Outcome<()> {
    let proxy = Proxy::new(addr)?;
    proxy.both(Mode::Delay(DELAY));
    println!("{url} {}", url.replace(&addr.port().to_string(), &proxy.addr().port().to_string()));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
