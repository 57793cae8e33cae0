//! One distributed-lock engine: leases that are exclusive, renewed, honest about loss and fenced, over many backends.
//!
//! ```
//! # fn main() -> dlock::Result<()> {
//! let client = dlock::Client::connect("memory://")?;
//! let lease = client.lock("k").acquire().wait()?;
//! assert!(lease.is_held());
//! lease.release().wait()?;
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]
// A build that leaves backends out doesn't need all that they share.
#![cfg_attr(not(all(feature = "memory", feature = "file", feature = "redis", feature = "etcd")), allow(dead_code))]

#[macro_use]
pub mod mutant;

mod api;
pub mod backend;
pub mod clock;
pub mod config;
pub mod contract;
pub mod drivers;
mod engine;
mod error;
#[cfg(feature = "tls")]
mod net;
mod observe;
pub mod runtime;
#[cfg(feature = "testing")]
pub mod testing;
mod timing;

pub use api::client::Client;
pub use api::lock::Lock;
pub use api::{options, registry};
pub use config::Config;
pub use contract::{AcquireOptions, Capabilities, Claim, ContenderInfo, Mode};
pub use engine::release::ReleaseOutcome;
pub use engine::status::State;
pub use engine::tenure::Lease;
pub use engine::{exit, shutdown};
pub use error::{Error, Kind, Result, show};
pub use observe::{callbacks, event, log};
pub use runtime::cancel::Canceller;
pub use runtime::op::Op;
pub use timing::limits;

/// The Rust blocks of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
