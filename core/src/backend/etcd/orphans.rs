//! What may still be put after its claim has ended: looked for and deleted until it can't come any more.

use std::sync::{Arc, Weak};

use super::link::{Link, PATIENCE, Unanswered};
use super::mutex::leave;
use super::session::Session;
use crate::clock::{self, Instant};
use crate::runtime;

/// A key that a claim may have put, or may still put.
pub(super) struct Ghost {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Where it was asked with no answer.
    pub(super) unanswered: Unanswered,
}

/// Deletes it, again and again: until the connections on which it was asked are closed and two looks have not found
/// it, or the lease that it needs has ended.
pub(super) fn settle(link: Arc<Link>, session: &Arc<Session>, ghost: Ghost) {
    if mutant!("etcd-unsettled-forgotten") {
        return;
    }
    let (ttl, end, session) = (session.ttl, session.since().plus(session.ttl), Arc::downgrade(session));
    runtime::spawn(async move {
        let mut absent = 0;
        while absent < 2 && !is_over(&session, end) {
            let closed = ghost.unanswered.iter().all(|conn| conn.strong_count() == 0);
            let limits = link.limits(PATIENCE);
            match leave(&link, limits, (&ghost.key, &ghost.value), 0).await {
                Ok(left) if left.value || !closed => absent = 0,
                Ok(_) => absent += 1,
                Err(_) => {}
            }
            clock::sleep(ttl / 3).await;
        }
    });
}

/// Whether nothing can be put with the lease any more.
fn is_over(session: &Weak<Session>, end: Instant) -> bool {
    match session.upgrade() {
        Some(session) => session.is_over(),
        // Nobody keeps it alive.
        None => end.passed(),
    }
}
