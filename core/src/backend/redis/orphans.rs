//! What is left of claims that ended while a request of theirs may still arrive: taken back until none can.

use std::sync::Arc;
use std::time::Duration;

use super::keys::Names;
use super::link::{Limits, Link, PATIENCE};
use super::script::Script;
use crate::clock::{self, Instant};
use crate::runtime;

/// A claim that has ended, and until when by the server's clock a request of its may still be accepted.
#[derive(Debug)]
pub(super) struct Ghost {
    pub(super) names: Arc<Names>,
    pub(super) claim: Arc<str>,
    /// The user's own token.
    pub(super) user: Option<Arc<str>>,
    pub(super) till: i64,
}

impl Ghost {
    /// One whose grant came when nobody wanted it any longer.
    pub(super) fn new(names: Arc<Names>, claim: &str) -> Self {
        Self { names, claim: claim.into(), user: None, till: 0 }
    }
}

impl Link {
    /// Takes it back in the background.
    pub(super) fn reap(self: &Arc<Self>, ghost: Ghost) {
        if !mutant!("redis-no-reaper") {
            runtime::spawn(settle(self.clone(), ghost));
        }
    }

    /// For what the post hands back.
    pub(super) fn receive(self: &Arc<Self>, ghost: Option<Ghost>) {
        if let Some(ghost) = ghost {
            self.reap(ghost);
        }
    }
}

/// Leaves, again and again, until the server has done so after the last moment at which a request of the claim's could
/// be accepted.
async fn settle(link: Arc<Link>, ghost: Ghost) {
    const LONGEST: Duration = Duration::from_secs(60);
    let end = Instant::now().plus(LONGEST);
    let mut pause = Duration::from_millis(20);
    while !end.passed() {
        if let Ok(left) = leave(&link, &ghost, Limits { patience: PATIENCE, budget: PATIENCE * 5 }).await
            && left.server_ms > ghost.till
        {
            return;
        }
        clock::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// What a `leave` found.
pub(super) struct Left {
    /// The server's clock when it was done.
    pub(super) server_ms: i64,
    /// The number of the connection on which it was answered.
    pub(super) conn: u64,
}

/// Leaves the queue, and gives back what nobody saw.
pub(super) async fn leave(link: &Arc<Link>, ghost: &Ghost, limits: Limits) -> Result<Left, super::error::Failure> {
    let names = &ghost.names;
    let answer = link
        .run(Script::Leave, limits, |_, cmd| {
            names.add_to(cmd);
            cmd.arg(link.post.contender()).arg(&*ghost.claim).arg(ghost.user.as_deref().unwrap_or_default());
        })
        .await?;
    let (_, server_ms): (String, i64) = super::read(answer.value)?;
    answer.conn.set_clock(server_ms);
    Ok(Left { server_ms, conn: answer.conn.number })
}
