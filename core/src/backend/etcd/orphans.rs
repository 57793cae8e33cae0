//! Orphans: keys that may still be put after their claim has ended. They are deleted until they can't come any more.

use std::sync::{Arc, Weak};

use super::connection::Link;
use super::mutex::delete_if_ours;
use super::request::Unanswered;
use super::session::Session;
use crate::clock::{self, Instant};
use crate::net::in_doubt::all_closed;
use crate::runtime;
use crate::timing::{PATIENCE, session_refresh};

/// A key that a claim may have put, or may still put.
pub(super) struct Orphan {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The connections on which the put had no answer.
    pub(super) unanswered: Unanswered,
}

/// Deletes the key again and again: until the connections of the put are closed and two tries have not found the key,
/// or its lease has ended.
pub(super) fn take_back(link: Arc<Link>, session: &Arc<Session>, orphan: Orphan) {
    if mutant!("etcd-unsettled-forgotten") {
        return;
    }
    let (ttl, end, session) = (session.ttl, session.since().plus(session.ttl), Arc::downgrade(session));
    runtime::spawn(async move {
        let mut absent = 0;
        while absent < 2 && !is_over(&session, end) {
            let closed = all_closed(&orphan.unanswered);
            let limits = link.limits(PATIENCE);
            match delete_if_ours(&link, limits, (&orphan.key, &orphan.value), 0).await {
                Ok(deleted) if deleted.value || !closed => absent = 0,
                Ok(_) => absent += 1,
                Err(_) => {}
            }
            clock::sleep(session_refresh(ttl)).await;
        }
    });
}

/// Returns true if nothing can be put with the lease any more.
fn is_over(session: &Weak<Session>, end: Instant) -> bool {
    match session.upgrade() {
        Some(session) => session.is_over(),
        // No claim keeps it alive.
        None => end.passed(),
    }
}
