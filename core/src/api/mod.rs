//! The calls of users: clients, locks and leases.

pub(crate) mod client;
mod lease;
pub(crate) mod lock;
pub mod options;
pub mod registry;
