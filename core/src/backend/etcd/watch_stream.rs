//! The one watch stream of a client: begun when somebody waits, begun anew when it breaks, ended when nobody does.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use etcd_client::{EventType, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::mpsc;

use super::keys::range;
use super::link::Conn;
use super::watch::{Order, Watches};
use crate::clock;

/// How long opening a stream may take.
const OPENING: Duration = Duration::from_secs(5);
/// The longest pause between two tries to open one.
const PAUSE: Duration = Duration::from_secs(1);

/// Has the stream for as long as there is something to watch.
pub(super) async fn run(watches: Weak<Watches>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut pause = Duration::from_millis(10);
    loop {
        let Some(this) = watches.upgrade() else { return };
        this.sweep();
        if orders.is_closed() {
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
            stream.serve(&watches, &mut orders).await;
            if orders.is_closed() {
                return;
            }
            // Whoever waits looks for himself, and again when there is a stream.
            let Some(this) = watches.upgrade() else { return };
            this.all_ended();
        }
        clock::sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

struct Stream {
    conn: Arc<Conn>,
    sender: WatchRequestSender,
    responses: WatchResponseStream,
    /// The watchers that the server was asked for.
    known: HashSet<i64>,
}

/// The longest answer that is taken: many keys may be deleted at once.
const ANSWER: usize = 64 << 20;

fn options(id: i64, to: Vec<u8>) -> WatchOptions {
    // From now on: from a past revision the server begins only at its next tick, 100 ms later. Whoever waits reads
    // after this, so that nothing is missed.
    WatchOptions::new().with_range(to).with_filters([WatchFilterType::NoPut]).with_watch_id(id)
}

/// A stream with a watcher for all that is waited for.
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
    async fn watch(&mut self, id: i64, name: &str) -> Option<()> {
        if !self.known.insert(id) {
            return Some(());
        }
        let (from, to) = range(name);
        self.sender.watch(from, Some(options(id, to))).await.ok()
    }

    /// Until it breaks, its connection is given up, or there is nothing left to watch.
    async fn serve(&mut self, watches: &Weak<Watches>, orders: &mut mpsc::UnboundedReceiver<Order>) {
        loop {
            let Some(this) = watches.upgrade() else { return };
            let sweep = this.sweep();
            if orders.is_closed() {
                return;
            }
            drop(this);
            let done = tokio::select! {
                biased;
                response = self.responses.message() => match (response, watches.upgrade()) {
                    (Ok(Some(response)), Some(watches)) => self.take(&watches, &response).await,
                    _ => None,
                },
                order = orders.recv() => match order {
                    Some(Order::Watch(id, name)) => self.watch(id, &name).await,
                    Some(Order::Cancel(id)) => self.cancel(id).await,
                    Some(Order::Sweep) => Some(()),
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

    async fn cancel(&mut self, id: i64) -> Option<()> {
        if !self.known.remove(&id) {
            return Some(());
        }
        self.sender.cancel(id).await.ok()
    }

    async fn take(&mut self, watches: &Watches, response: &WatchResponse) -> Option<()> {
        let id = response.watch_id();
        let deletions = response.events().iter().filter(|event| event.event_type() == EventType::Delete);
        let gone: Vec<_> =
            deletions.filter_map(|event| Some((event.kv()?.key(), event.kv()?.mod_revision()))).collect();
        watches.deleted(id, &gone);
        if response.canceled() {
            // Ours, or of a watcher that fell behind a compaction, or that the user may not have.
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
