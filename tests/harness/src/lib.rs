//! The shared parts of the tests: the backends, a proxy that behaves like a bad network, servers that are started,
//! stopped and made to fail, and histories of the lock calls of processes, with a judge for them.

mod resp;

pub mod backends;
pub mod crowd;
pub mod ending;
pub mod history;
pub mod languages;
pub mod mutants;
pub mod other_clients;
pub mod proxy;
pub mod scenario;
pub mod server;
