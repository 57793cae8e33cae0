//! Those who hold a lock or wait for it, as a backend knows them.

use std::time::Duration;

use super::admission::Mode;

/// Somebody who holds or waits. What the backend can't tell is `None`, never guessed.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContenderInfo {
    /// True if this one holds the lock; otherwise it waits.
    pub held: bool,
    /// The owner's token.
    pub token: Option<String>,
    /// The owner's free text.
    pub label: Option<String>,
    /// The owner's host.
    pub host: Option<String>,
    /// The owner's process.
    pub pid: Option<u32>,
    /// The fencing token.
    pub fence: Option<u64>,
    /// The time for which it has held, or waited.
    pub age: Option<Duration>,
    /// The time for which the backend still keeps the lock with no renewal.
    pub ttl: Option<Duration>,
    /// The mode in which it holds the lock, or is to hold it.
    pub mode: Mode,
    /// The slots of its permits.
    pub slots: Vec<u32>,
}
