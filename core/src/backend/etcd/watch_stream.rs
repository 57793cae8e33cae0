//! The watch stream of a client.

use std::collections::HashSet;
use std::sync::Arc;

use etcd_client::{WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};

use super::connection::{Conn, Link};
use super::keys::range;

/// A command to the task of the stream.
pub(super) enum WatchCommand {
    /// Starts a watcher.
    Watch(i64, Arc<str>),
    /// Cancels a watcher.
    Cancel(i64),
    /// Cancels the watchers that are not used any more.
    Sweep,
}

/// An open stream.
pub(super) struct Stream {
    conn: Arc<Conn>,
    sender: WatchRequestSender,
    responses: WatchResponseStream,
    /// The watchers that the server was asked for.
    known: HashSet<i64>,
}

/// The longest answer that is accepted: many keys may be deleted at once.
const ANSWER: usize = 64 << 20;

/// Returns the options of a watcher.
fn options(id: i64, to: Vec<u8>) -> WatchOptions {
    // From the current revision: at a past revision the server starts only at its next tick, 100 ms later. Waiters read
    // after the start, so that they miss nothing.
    WatchOptions::new().with_range(to).with_filters([WatchFilterType::NoPut]).with_watch_id(id)
}

impl Stream {
    /// Opens a stream with these watchers.
    pub(super) async fn open(link: &Arc<Link>, watchers: impl Fn() -> Vec<(i64, Arc<str>)>) -> Option<Self> {
        let conn = link.connect(None).await.ok()?;
        let all = watchers();
        let (first, name) = all.first()?;
        let (from, to) = range(name);
        let mut client = conn.client.watch_client().max_decoding_message_size(ANSWER);
        let opened = client.watch(from, Some(options(*first, to))).await.ok()?;
        let (sender, responses) = opened.split();
        let mut stream = Self { conn, sender, responses, known: HashSet::from([*first]) };
        for (id, name) in &all[1..] {
            stream.watch(*id, name).await?;
        }
        Some(stream)
    }

    /// Waits for the next answer. `None`: the stream is broken, or its connection is given up.
    pub(super) async fn next(&mut self) -> Option<WatchResponse> {
        tokio::select! {
            biased;
            response = self.responses.message() => response.ok().flatten(),
            () = self.conn.gone() => None,
        }
    }

    /// Executes a command. `None`: the stream is broken.
    pub(super) async fn execute(&mut self, command: WatchCommand) -> Option<()> {
        match command {
            WatchCommand::Watch(id, name) => self.watch(id, &name).await,
            WatchCommand::Cancel(id) if self.known.remove(&id) => self.sender.cancel(id).await.ok(),
            WatchCommand::Cancel(_) | WatchCommand::Sweep => Some(()),
        }
    }

    /// Starts a watcher.
    pub(super) async fn watch(&mut self, id: i64, name: &str) -> Option<()> {
        if !self.known.insert(id) {
            return Some(());
        }
        let (from, to) = range(name);
        self.sender.watch(from, Some(options(id, to))).await.ok()
    }

    /// Notes that the server has cancelled a watcher. Returns false if this client had cancelled it before.
    pub(super) fn cancelled(&mut self, id: i64) -> bool {
        self.known.remove(&id)
    }
}
