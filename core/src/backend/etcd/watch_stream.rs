//! The watch stream of a client. It starts with the first waiter, starts again when it breaks, and ends with the last
//! one.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use etcd_client::{EventType, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::mpsc;

use super::keys::range;
use super::link::Conn;
use super::watch::{WatchCommand, Watches};
use crate::clock;

/// The time for opening a stream.
const OPENING: Duration = Duration::from_secs(5);
/// The longest pause between two tries to open a stream.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps a stream for as long as there is something to watch.
pub(super) async fn run(watches: Weak<Watches>, mut commands: mpsc::UnboundedReceiver<WatchCommand>) {
    let mut pause = Duration::from_millis(10);
    loop {
        let Some(this) = watches.upgrade() else { return };
        this.sweep();
        if commands.is_closed() {
            return;
        }
        let opened = tokio::select! {
            biased;
            opened = open(&this) => opened,
            () = clock::sleep(OPENING) => None,
        };
        drop(this);
        if let Some(mut stream) = opened {
            pause = Duration::from_millis(10);
            stream.serve(&watches, &mut commands).await;
            if commands.is_closed() {
                return;
            }
            // Every waiter reads for itself, and again when there is a stream.
            let Some(this) = watches.upgrade() else { return };
            this.all_ended();
        }
        clock::sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

/// An open stream.
struct Stream {
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

/// Opens a stream with all watchers.
async fn open(watches: &Watches) -> Option<Stream> {
    let conn = watches.link.conn(None).await.ok()?;
    let all = watches.all();
    let (first, name) = all.first()?;
    let (from, to) = range(name);
    let mut client = conn.client.watch_client().max_decoding_message_size(ANSWER);
    let opened = client.watch(from, Some(options(*first, to))).await.ok()?;
    let (sender, responses) = opened.split();
    let mut stream = Stream { conn, sender, responses, known: HashSet::from([*first]) };
    for (id, name) in &all[1..] {
        stream.watch(*id, name).await?;
    }
    Some(stream)
}

impl Stream {
    /// Starts a watcher.
    async fn watch(&mut self, id: i64, name: &str) -> Option<()> {
        if !self.known.insert(id) {
            return Some(());
        }
        let (from, to) = range(name);
        self.sender.watch(from, Some(options(id, to))).await.ok()
    }

    /// Serves the stream until it breaks, its connection is given up, or there is nothing left to watch.
    async fn serve(&mut self, watches: &Weak<Watches>, commands: &mut mpsc::UnboundedReceiver<WatchCommand>) {
        loop {
            let Some(this) = watches.upgrade() else { return };
            let sweep = this.sweep();
            if commands.is_closed() {
                return;
            }
            drop(this);
            let done = tokio::select! {
                biased;
                response = self.responses.message() => match (response, watches.upgrade()) {
                    (Ok(Some(response)), Some(watches)) => self.receive(&watches, &response).await,
                    _ => None,
                },
                command = commands.recv() => match command {
                    Some(WatchCommand::Watch(id, name)) => self.watch(id, &name).await,
                    Some(WatchCommand::Cancel(id)) => self.cancel(id).await,
                    Some(WatchCommand::Sweep) => Some(()),
                    None => None,
                },
                () = self.conn.gone() => None,
                () = clock::sleep_until(sweep) => Some(()),
            };
            if done.is_none() {
                return;
            }
        }
    }

    /// Cancels a watcher.
    async fn cancel(&mut self, id: i64) -> Option<()> {
        if !self.known.remove(&id) {
            return Some(());
        }
        self.sender.cancel(id).await.ok()
    }

    /// Handles an answer.
    async fn receive(&mut self, watches: &Watches, response: &WatchResponse) -> Option<()> {
        let id = response.watch_id();
        let deletions = response.events().iter().filter(|event| event.event_type() == EventType::Delete);
        let gone: Vec<_> =
            deletions.filter_map(|event| Some((event.kv()?.key(), event.kv()?.mod_revision()))).collect();
        watches.deleted(id, &gone);
        if response.canceled() {
            // Cancelled by this client, or by the server after a compaction or for lack of permission.
            if !self.known.remove(&id) {
                return Some(());
            }
            let forbidden = response.compact_revision() == 0 && response.cancel_reason().contains("permission");
            let name = watches.ended(id, forbidden)?;
            return if forbidden { Some(()) } else { self.watch(id, &name).await };
        }
        if response.created() {
            watches.created(id);
        }
        Some(())
    }
}
