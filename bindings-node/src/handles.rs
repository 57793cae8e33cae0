//! The values that numbers of JavaScript stand for, besides leases.

use std::cell::RefCell;

use dlock::Lock;

/// A client, with the lock that it was asked for last. Most callers ask for the same lock again.
pub(crate) struct Client {
    pub(crate) client: dlock::Client,
    pub(crate) last: RefCell<Option<Lock>>,
}
