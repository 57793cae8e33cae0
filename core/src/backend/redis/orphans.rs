//! Orphans: claims that ended while one of their requests may still arrive. They are taken back until none can.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Link;
use super::inbox::Orphan;
use super::script::{Script, read};
use crate::clock::{self, Instant};
use crate::error::Result;
use crate::net::request::Limits;
use crate::runtime;
use crate::timing::PATIENCE;

/// Takes an orphan back in the background.
pub(super) fn take_back(link: &Arc<Link>, orphan: Orphan) {
    if !mutant!("redis-no-reaper") {
        runtime::spawn(withdraw_until_over(link.clone(), orphan));
    }
}

/// Repeats the withdrawal until the server has executed it after the last moment at which one of the claim's requests
/// could be accepted.
async fn withdraw_until_over(link: Arc<Link>, orphan: Orphan) {
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
