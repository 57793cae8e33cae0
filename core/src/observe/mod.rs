//! Events for logs and metrics, and the calls of users' callbacks.

pub mod callbacks;
pub mod event;
pub mod log;
