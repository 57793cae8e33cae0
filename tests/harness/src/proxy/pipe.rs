//! One direction of a connection, with the bytes that are under way.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Mode;
use crate::resp::Scan;

/// The pause between two fragments. Without it a reader would see several fragments as one.
const GAP: Duration = Duration::from_micros(50);

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// The beginning of an incomplete value.
    pub(super) part: Vec<u8>,
    pub(super) scan: Scan,
    /// The end of the bytes that each rule has searched.
    pub(super) tails: HashMap<u64, Vec<u8>>,
    pub(super) queue: VecDeque<Chunk>,
    pub(super) queued: usize,
    last_due: Option<Instant>,
    /// The time before which nothing is written, after a fragment.
    pause: Option<Instant>,
    /// True if a rule holds the bytes.
    pub(super) held: bool,
    /// True if no more bytes are taken in, and the end isn't forwarded.
    pub(super) deaf: bool,
    pub(super) end: Option<End>,
    /// True if the end was forwarded.
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    pub(super) due: Instant,
    pub(super) asks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}

impl Pipe {
    /// Returns the time at which the next bytes are to be written.
    pub(super) fn due(&self, mode: Mode) -> Option<Instant> {
        let first = self.queue.front()?;
        self.flows(mode).then(|| self.pause.map_or(first.due, |pause| pause.max(first.due)))
    }

    pub(super) fn flows(&self, mode: Mode) -> bool {
        !(self.held || mode == Mode::Hold)
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>, asks: bool, due: Instant) {
        let due = self.last_due.map_or(due, |last| last.max(due));
        self.last_due = Some(due);
        self.queued += bytes.len();
        self.queue.push_back(Chunk { bytes, sent: 0, due, asks });
    }

    pub(super) fn sent(&mut self, length: usize, fragment: bool) {
        self.queued -= length;
        self.pause = fragment.then(|| Instant::now() + GAP);
        if let Some(first) = self.queue.front_mut() {
            first.sent += length;
            if first.sent == first.bytes.len() {
                self.queue.pop_front();
            }
        }
    }
}
