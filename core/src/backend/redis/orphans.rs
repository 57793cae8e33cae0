//! Orphans: claims that ended while one of their requests may still arrive. They are taken back until none can.

use std::sync::Arc;
use std::time::Duration;

use super::keys::Keys;
use super::link::{Limits, Link, PATIENCE};
use super::script::Script;
use crate::clock::{self, Instant};
use crate::runtime;

/// A claim that has ended, and the time of the server's clock until which one of its requests may be accepted.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) keys: Arc<Keys>,
    pub(super) claim: Arc<str>,
    /// The user's own token.
    pub(super) user: Option<Arc<str>>,
    pub(super) until: i64,
}

impl Orphan {
    /// Returns the orphan of a claim whose grant arrived after its end.
    pub(super) fn new(keys: Arc<Keys>, claim: &str) -> Self {
        Self { keys, claim: claim.into(), user: None, until: 0 }
    }
}

impl Link {
    /// Takes an orphan back in the background.
    pub(super) fn take_back(self: &Arc<Self>, orphan: Orphan) {
        if !mutant!("redis-no-reaper") {
            runtime::spawn(take_back(self.clone(), orphan));
        }
    }

    /// Takes back the orphan that a message may have left.
    pub(super) fn receive(self: &Arc<Self>, orphan: Option<Orphan>) {
        if let Some(orphan) = orphan {
            self.take_back(orphan);
        }
    }
}

/// Repeats the withdrawal until the server has executed it after the last moment at which one of the claim's requests
/// could be accepted.
async fn take_back(link: Arc<Link>, orphan: Orphan) {
    const LONGEST: Duration = Duration::from_secs(60);
    let end = Instant::now().plus(LONGEST);
    let mut pause = Duration::from_millis(20);
    while !end.passed() {
        if let Ok(withdrawn) = withdraw(&link, &orphan, Limits { patience: PATIENCE, budget: PATIENCE * 5 }).await
            && withdrawn.server_ms > orphan.until
        {
            return;
        }
        clock::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
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
pub(super) async fn withdraw(
    link: &Arc<Link>,
    orphan: &Orphan,
    limits: Limits,
) -> Result<Withdrawn, super::error::Failure> {
    let keys = &orphan.keys;
    let answer = link
        .run(Script::Withdraw, limits, |_, cmd| {
            keys.add_to(cmd);
            cmd.arg(link.inbox.contender()).arg(&*orphan.claim).arg(orphan.user.as_deref().unwrap_or_default());
        })
        .await?;
    let (_, server_ms): (String, i64) = super::read(answer.value)?;
    answer.conn.set_clock(server_ms);
    Ok(Withdrawn { server_ms, conn: answer.conn.number })
}
