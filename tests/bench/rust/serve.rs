//! A server for the run, and a proxy in front of it that delays: until the input ends.

use std::io::Read;
use std::time::Duration;

use dlock_harness::backends::{self, Setup};
use dlock_harness::proxy::{Mode, Proxy};

use crate::Outcome;

/// How much later everything arrives through the proxy, each way.
const DELAY: Duration = Duration::from_micros(500);

pub(crate) fn serve(backend: &str) -> Outcome<()> {
    let remote = backends::named(backend)?.remote().ok_or_else(|| format!("{backend} has no server"))?;
    let server = remote.start(Setup::default())?;
    let (url, addr) = (server.url(), server.addr());
    let proxy = Proxy::new(addr)?;
    proxy.both(Mode::Delay(DELAY));
    println!("{url} {}", url.replace(&addr.port().to_string(), &proxy.addr().port().to_string()));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
