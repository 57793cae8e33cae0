//! A Redis for the run, and a proxy in front of it that delays: until the input ends.

use std::io::Read;
use std::time::Duration;

use dlock_harness::proxy::{Mode, Proxy};
use dlock_harness::server::{Redis, RedisOptions};

use crate::Outcome;

/// How much later everything arrives through the proxy, each way.
const DELAY: Duration = Duration::from_micros(500);

pub(crate) fn serve() -> Outcome<()> {
    let server = Redis::start(&RedisOptions::new())?;
    let proxy = Proxy::new(server.addr())?;
    proxy.both(Mode::Delay(DELAY));
    println!("{} {}", server.url(), server.url().replace(&server.port().to_string(), &proxy.addr().port().to_string()));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
