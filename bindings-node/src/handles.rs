//! What the numbers of JavaScript stand for, beside leases.

use std::cell::RefCell;

use dlock::Lock;

/// A client, with the lock it was asked for last: most callers ask for the same one again.
pub(crate) struct Client {
    pub(crate) client: dlock::Client,
    pub(crate) last: RefCell<Option<Lock>>,
}
