//! The parts that tests replace: the runtime, the clock, and, by name, one piece of correct behaviour with a deliberate
//! defect.

use std::sync::Arc;

use crate::api::client::Client;
use crate::config::{Config, Values};
use crate::contract::{Backend, Capabilities, Context};
use crate::drivers::DRIVERS;
use crate::error::Result;
pub use crate::mutant::MUTANTS;
pub use crate::runtime::simulated::{Process, simulate};

/// A client of a backend of the test's, with a gate, watchdog and runtime like any other: one simulated process.
///
/// # Errors
/// Those of making the backend.
pub fn client(config: Config, make: impl FnOnce(Context) -> Result<Arc<dyn Backend>>) -> Result<Client> {
    client_with(remote_capabilities(), config, make)
}

/// A client as [`client`] makes it, of a backend with these capabilities.
///
/// # Errors
/// Those of making the backend.
pub fn client_with(
    capabilities: Capabilities,
    config: Config,
    make: impl FnOnce(Context) -> Result<Arc<dyn Backend>>,
) -> Result<Client> {
    Client::unshared(config, |context| Ok((make(context)?, capabilities)))
}

/// The capabilities of a test's backend that is reached as a server is: those of `memory`, and nothing on the caller's
/// thread.
pub fn remote_capabilities() -> Capabilities {
    let memory = DRIVERS.iter().find(|driver| driver.schema.name == "memory").expect("tests have memory");
    Capabilities { local: false, ..(memory.capabilities)(&Values::new(memory.schema)) }
}

/// Returns true if somebody in the client's process contends for this key or holds it, or what is left of that isn't
/// settled.
pub fn has_turn(client: &Client, key: &str) -> bool {
    let name = client.lock(key).backend_name().to_owned();
    let queue = client.engine().ok().and_then(|engine| engine.find(&name));
    queue.is_some_and(|queue| queue.is_taken())
}

/// Returns how many leases the client's watchdog has looked at so far.
pub fn watchdog_looks(client: &Client) -> u64 {
    client.engine().map_or(0, |engine| engine.shared().timer.seen.load(std::sync::atomic::Ordering::Relaxed))
}
