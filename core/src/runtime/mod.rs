//! The only runtime, what a fork does to it, and how work gets onto it.

mod background;
pub(crate) mod cancel;
#[cfg(unix)]
pub(crate) mod close_on_fork;
mod executor;
pub(crate) mod exit;
#[cfg(unix)]
mod fd_table;
mod fork;
mod lock;
pub(crate) mod op;
mod pool;
#[cfg(feature = "testing")]
pub(crate) mod simulated;
pub(crate) mod threads;
mod wake;

pub use background::{drain, handle, spawn};
pub(crate) use background::{drain_until, ran, spawn_call, spawn_tracked, started, tracked};
pub use executor::BoxFuture;
pub use fork::{PerProcess, epoch, watch_forks};
pub use lock::lock;
pub(crate) use pool::Pool;
pub use wake::Wake;
