//! The contract of a backend.
//!
//! A backend knows how to try once, say when to try again, renew and release. Deadlines, cancelling, retries, renewal
//! and local queues are written once, above it.

pub(crate) mod admission;
mod backend;
mod capability;
mod claim;
mod contender_info;
mod context;
mod driver;
pub(crate) mod owner;
#[cfg(feature = "tls")]
pub(crate) mod record;

pub use admission::{Admission, Mode, admit};
pub use backend::{Attempt, Backend, Contender, DueLease, Grant, Released, Renewal, RetryHint};
pub use capability::Capabilities;
pub use claim::{AcquireOptions, Claim};
pub use contender_info::ContenderInfo;
pub use context::{Context, Observer, Suspects};
pub use driver::Driver;
