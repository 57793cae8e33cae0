//! What happened, for logs and metrics; and the code of users that is called.

pub mod callbacks;
pub mod event;
pub mod log;
