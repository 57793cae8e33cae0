//! The questions to a backend: the options a lock is held on, and one claim under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::admission::Mode;
use super::owner;
use crate::config::DEFAULT_TTL;

/// The options on which a lock asks for its key, the same for each of its acquisitions.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct AcquireOptions {
    /// The user's key.
    pub key: Arc<str>,
    /// The name under which the backend knows it.
    pub name: Arc<str>,
    /// One holder, or several.
    pub mode: Mode,
    /// The time for which the backend keeps the lock with no renewal.
    pub ttl: Duration,
    /// The time to wait for the lock; `None`: for ever; zero: try once.
    pub wait: Option<Duration>,
    /// Instead of waiting: at most so many attempts, so far apart.
    pub retry: Option<(u32, Duration)>,
    /// True if the watchdog renews the lease.
    pub auto_renew: bool,
    /// After this long the lease is lost and deleted at the backend.
    pub max_hold: Option<Duration>,
    /// The user's own token.
    pub token: Option<Arc<str>>,
    /// Free text shown by `contenders`.
    pub label: Option<Arc<str>>,
    /// First come, first served across processes: asked for, refused, or as the backend does.
    pub fair: Option<bool>,
    /// The number of times in a row that the lock may be passed on inside this process.
    pub handoff: u32,
}

impl AcquireOptions {
    pub(crate) fn new(key: &str) -> Self {
        Self {
            key: key.into(),
            name: key.into(),
            mode: Mode::Exclusive,
            ttl: DEFAULT_TTL,
            wait: None,
            retry: None,
            auto_renew: true,
            max_hold: None,
            token: None,
            label: None,
            fair: None,
            handoff: 0,
        }
    }
}

/// One claim under these options: never used again once it was granted, withdrawn or given back.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The options.
    pub options: Arc<AcquireOptions>,
    /// The client of this process that asks.
    pub client: u32,
    /// The number that tells this claim from every other of this process, also under one token.
    pub nonce: u64,
    /// True: to stand in the backend's queue; false: only to try.
    pub wait: bool,
}

impl Claim {
    pub(crate) fn new(client: u32, options: Arc<AcquireOptions>, wait: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { options, client, nonce: NEXT.fetch_add(1, Ordering::Relaxed), wait }
    }

    /// The text that proves ownership: the user's, or one unique to this claim.
    pub fn token(&self) -> String {
        match &self.options.token {
            Some(token) => token.to_string(),
            None => self.id(),
        }
    }

    /// The text that tells this claim from every other anywhere: `<contender>.<nonce>`.
    pub fn id(&self) -> String {
        format!("{}.{}", owner::contender(self.client), self.nonce)
    }
}
