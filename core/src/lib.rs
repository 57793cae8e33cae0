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

mod acquire;
pub mod backend;
mod claim;
mod client;
pub mod clock;
pub mod config;
mod error;
pub mod event;
mod gate;
mod lease;
mod lock;
#[cfg(feature = "tls")]
mod net;
mod op;
mod outage;
pub mod registry;
pub mod runtime;
#[cfg(feature = "testing")]
pub mod testing;
mod watchdog;

pub use backend::{Capability, Holder};
pub use claim::{Claim, Mode, Terms};
pub use client::{Client, exit, shutdown};
pub use config::Config;
pub use error::{Error, Kind, Result, show};
pub use lease::{Ended, Lease, State};
pub use lock::Lock;
pub use op::{Canceller, Op};

/// The Rust blocks of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
