//! Orphans: keys that may still be put after their claim has ended. They are deleted until they can't come any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::connection::Link;
use super::mutex::delete_if_ours;
use super::request::Unanswered;
use super::session::Session;
use crate::clock::Instant;
use crate::net::in_doubt::{self, Remnant, all_closed};
use crate::timing::{PATIENCE, session_refresh};

/// A key that a claim may have put, or may still put.
pub(super) struct Orphan {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The connections on which the put had no answer.
    pub(super) unanswered: Unanswered,
}

/// An orphan, until nobody can put its key any more: the connections of the put are closed and two tries have not found
/// the key, or its lease has ended.
struct Unsettled {
    link: Arc<Link>,
    orphan: Orphan,
    session: Weak<Session>,
    ttl: Duration,
    /// The end of the lease if no claim keeps it alive.
    end: Instant,
    /// The number of tries in a row that have not found the key.
    absent: u32,
}

/// Deletes the key in the background.
pub(super) fn take_back(link: Arc<Link>, session: &Arc<Session>, orphan: Orphan) {
    if mutant!("etcd-unsettled-forgotten") {
        return;
    }
    let (ttl, end, session) = (session.ttl, session.since().plus(session.ttl), Arc::downgrade(session));
    in_doubt::take_back(Unsettled { link, orphan, session, ttl, end, absent: 0 });
}

impl Unsettled {
    /// Returns true if nothing can be put with the lease any more.
    fn is_over(&self) -> bool {
        self.session.upgrade().map_or_else(|| self.end.passed(), |session| session.is_over())
    }
}

impl Remnant for Unsettled {
    async fn take_back(&mut self) -> bool {
        if self.is_over() {
            return true;
        }
        let closed = all_closed(&self.orphan.unanswered);
        let limits = self.link.limits(PATIENCE);
        match delete_if_ours(&self.link, limits, (&self.orphan.key, &self.orphan.value), 0).await {
            Ok(deleted) if deleted.value || !closed => self.absent = 0,
            Ok(_) => self.absent += 1,
            Err(_) => {}
        }
        self.absent == 2
    }

    fn pause(&mut self) -> Duration {
        session_refresh(self.ttl)
    }
}
