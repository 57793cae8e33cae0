//! Those who hold a lock or wait for it, as a backend knows them.

use std::time::Duration;

use super::admission::Mode;

/// Somebody who holds or waits. What the backend can't tell is `None`, never guessed.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContenderInfo {
    /// Whether this one holds the lock; else it waits.
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
    /// How long it has held, or waited.
    pub age: Option<Duration>,
    /// How long the backend still keeps the lock with no renewal.
    pub ttl: Option<Duration>,
    /// How it holds the lock, or is to hold it.
    pub mode: Mode,
    /// The slots of its permits.
    pub slots: Vec<u32>,
}
