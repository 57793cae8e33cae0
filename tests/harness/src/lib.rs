//! What the tests share: the backends as tests know them, a proxy that does what networks do, servers that are started,
//! stopped and made to fail, and histories of what processes did with locks, with a judge of them.

mod resp;

pub mod backends;
pub mod ending;
pub mod history;
pub mod languages;
pub mod mutants;
pub mod proxy;
pub mod scenario;
pub mod server;
