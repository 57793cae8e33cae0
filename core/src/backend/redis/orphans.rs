//! Orphans: claims that ended while one of their requests may still arrive. They are taken back until none can.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Link;
use super::inbox::Orphan;
use super::script::{Script, read};
use crate::clock::Instant;
use crate::error::Result;
use crate::net::in_doubt::{self, Remnant};
use crate::net::request::Limits;
use crate::timing::{Backoff, PATIENCE};

/// The longest time for which an orphan is taken back.
const LONGEST: Duration = Duration::from_secs(60);

/// An orphan, until the server has executed its withdrawal after the last moment at which one of the claim's requests
/// could be accepted.
struct Unsettled {
    link: Arc<Link>,
    orphan: Orphan,
    end: Instant,
    pauses: Backoff,
}

/// Takes an orphan back in the background.
pub(super) fn take_back(link: &Arc<Link>, orphan: Orphan) {
    if !mutant!("redis-no-reaper") {
        let (link, end, pauses) =
            (link.clone(), Instant::now().plus(LONGEST), Backoff::up_to(Duration::from_millis(500)));
        in_doubt::take_back(Unsettled { link, orphan, end, pauses });
    }
}

impl Remnant for Unsettled {
    async fn take_back(&mut self) -> bool {
        let limits = Limits { patience: PATIENCE, budget: PATIENCE * 5 };
        let withdrawn = withdraw(&self.link, &self.orphan, limits).await;
        withdrawn.is_ok_and(|withdrawn| withdrawn.server_ms > self.orphan.until) || self.end.passed()
    }

    fn pause(&mut self) -> Duration {
        self.pauses.next()
    }
}

/// The answer to a withdrawal.
pub(super) struct Withdrawn {
    /// The server's clock at the execution.
    pub(super) server_ms: i64,
    /// The number of the connection with the answer.
    pub(super) conn: u64,
}

/// Leaves the queue, and releases a lock whose grant reached nobody.
pub(super) async fn withdraw(link: &Arc<Link>, orphan: &Orphan, limits: Limits) -> Result<Withdrawn> {
    let keys = &orphan.keys;
    let contender = link.shared.inbox.contender();
    let answer = link
        .run(Script::Withdraw, limits, |_, cmd| {
            keys.add_to(cmd);
            cmd.arg(contender).arg(&*orphan.claim).arg(orphan.user.as_deref().unwrap_or_default());
        })
        .await?;
    let (_, server_ms): (String, i64) = read(answer.value)?;
    answer.conn.set_clock(server_ms);
    Ok(Withdrawn { server_ms, conn: answer.sent.conn })
}
