//! What is asked of a backend: the terms a lock is held on, and one claim under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::Capability;
use crate::error::{Error, Kind, Result};

/// The longest ttl, hold or wait that is taken for meant.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// The longest key, in bytes.
pub(crate) const KEY_LIMIT: usize = 512;
/// The longest token or label, in bytes.
pub(crate) const TEXT_LIMIT: usize = 1024;

/// How every token begins that isn't the user's.
const OURS: &str = "dlock:";

/// How a lock is shared. Only exclusive ones are built.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One holder.
    #[default]
    Exclusive,
}

/// The terms on which a lock asks for its key, the same for each of its acquisitions.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The user's key.
    pub key: Arc<str>,
    /// The name under which the backend knows it.
    pub name: Arc<str>,
    /// One holder, or several.
    pub mode: Mode,
    /// How long the backend keeps the lock with no renewal.
    pub ttl: Duration,
    /// How long to wait for the lock; `None`: for ever; zero: try once.
    pub wait: Option<Duration>,
    /// Instead of waiting: at most so many attempts, so far apart.
    pub retry: Option<(u32, Duration)>,
    /// Whether the watchdog renews the lease.
    pub renew: bool,
    /// After this long the lease is lost and deleted at the backend.
    pub max_hold: Option<Duration>,
    /// The user's own token.
    pub token: Option<Arc<str>>,
    /// Free text shown by `holders`.
    pub label: Option<Arc<str>>,
    /// First come, first served across processes: asked for, refused, or as the backend does.
    pub fair: Option<bool>,
    /// How many times in a row the lock may be passed on inside this process.
    pub handoff: u32,
}

impl Terms {
    pub(crate) fn new(key: &str) -> Self {
        Self {
            key: key.into(),
            name: key.into(),
            mode: Mode::Exclusive,
            ttl: Duration::from_secs(30),
            wait: None,
            retry: None,
            renew: true,
            max_hold: None,
            token: None,
            label: None,
            fair: None,
            handoff: 0,
        }
    }

    /// Checks everything that needs no backend's answer.
    pub(crate) fn check(&self, backend: &str, capability: &Capability) -> Result<()> {
        check_key(&self.key)?;
        check_ttl(self.ttl, backend, capability)?;
        for (what, value) in [("wait", self.wait), ("max_hold", self.max_hold)] {
            if let Some(value) = value.filter(|&value| value > LONGEST) {
                return Err(Error::invalid(format!(
                    "{what} of {value:?} is more than a year (366 days); leave it out for no limit"
                )));
            }
        }
        if self.max_hold.is_some_and(|hold| hold < Duration::from_millis(1)) {
            return Err(Error::invalid("max_hold of 0 would lose every lock at once; leave it out for no limit"));
        }
        if let Some((tries, delay)) = self.retry
            && (tries == 0 || delay > LONGEST)
        {
            return Err(Error::invalid(format!(
                "retry of {tries} tries, {delay:?} apart: at least 1 try, and a delay of at most 366 days"
            )));
        }
        for (what, text) in [("token", &self.token), ("label", &self.label)] {
            let Some(text) = text else { continue };
            if what == "token" && text.is_empty() || text.len() > TEXT_LIMIT || text.contains('\0') {
                return Err(Error::invalid(format!(
                    "a {what} of {} bytes: use 1 to {TEXT_LIMIT} bytes with no NUL, or leave it out",
                    text.len()
                )));
            }
        }
        if self.token.as_deref().is_some_and(|token| token.starts_with(OURS)) && !mutant!("client-token-of-ours-taken")
        {
            return Err(Error::invalid(format!(
                "a token that begins with `{OURS}`: dlock makes these for itself, and whoever has one could give back \
                 another's lock; use any other text, or leave it out"
            )));
        }
        if self.fair == Some(true) && !capability.fifo {
            return Err(unsupported(backend, "fair=true (first come, first served across processes)", |c| c.fifo));
        }
        if self.handoff > 0 && !capability.handoff {
            return Err(unsupported(backend, "handoff", |c| c.handoff));
        }
        Ok(())
    }
}

/// A key is 1 to 512 bytes of UTF-8 with no NUL.
fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid(format!("the key is empty: use 1 to {KEY_LIMIT} bytes of UTF-8")));
    }
    if key.len() > KEY_LIMIT {
        return Err(Error::invalid(format!(
            "the key has {} bytes, the limit is {KEY_LIMIT}: shorten it, for example by hashing its tail",
            key.len()
        ))
        .with_key(key));
    }
    if let Some(at) = key.find('\0') {
        return Err(Error::invalid(format!("the key has a NUL at byte {at}: leave it out or encode it")).with_key(key));
    }
    Ok(())
}

/// A ttl the backend can keep.
pub(crate) fn check_ttl(ttl: Duration, backend: &str, capability: &Capability) -> Result<()> {
    if ttl < capability.min_ttl {
        return Err(Error::invalid(format!(
            "ttl of {ttl:?} is below the minimum of {:?} on {backend}; use that or more (the default is 30 s)",
            capability.min_ttl
        )));
    }
    if ttl > LONGEST {
        return Err(Error::invalid(format!(
            "ttl of {ttl:?} is more than a year (366 days); a dead holder would keep the lock that long: \
             the default of 30 s is renewed for as long as the holder lives"
        )));
    }
    Ok(())
}

/// An `Unsupported` error that names the backends of this build that can.
pub(crate) fn unsupported(backend: &str, what: &str, able: impl Fn(&Capability) -> bool) -> Error {
    let able: Vec<_> =
        crate::client::capabilities().into_iter().filter(|(_, c)| able(c)).map(|(name, _)| name).collect();
    let remedy = if able.is_empty() {
        "no backend of this build can; leave the option out".to_owned()
    } else {
        format!("use {}, or leave the option out", able.join(" or "))
    };
    Error::new(Kind::Unsupported, format!("{backend} can't do {what}: {remedy}")).with_service(backend)
}

/// One claim under these terms: never used again once it was granted, withdrawn or given back.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The terms.
    pub terms: Arc<Terms>,
    /// Which client of this process asks.
    pub client: u32,
    /// What tells this claim from every other of this process, also under one token.
    pub nonce: u64,
    /// Whether to stand in the backend's queue, or only to try.
    pub wait: bool,
}

impl Claim {
    pub(crate) fn new(client: u32, terms: Arc<Terms>, wait: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { terms, client, nonce: NEXT.fetch_add(1, Ordering::Relaxed), wait }
    }

    /// The text that proves ownership: the user's, or one unique to this claim.
    pub fn token(&self) -> String {
        match &self.terms.token {
            Some(token) => token.to_string(),
            None => self.id(),
        }
    }

    /// The text that tells this claim from every other anywhere: `<contender>.<nonce>`.
    pub fn id(&self) -> String {
        format!("{}.{}", contender(self.client), self.nonce)
    }
}

/// What a client of this process is called in a backend's queue: `dlock:<host>:<pid>:<128 random bits>:<client>`.
pub(crate) fn contender(client: u32) -> String {
    format!("{}:{client}", crate::client::identity())
}

/// The host and the process of a contender or a claim; `None` for a text that is neither.
#[cfg(any(feature = "redis", feature = "etcd"))]
pub(crate) fn place(contender: &str) -> (Option<String>, Option<u32>) {
    let mut parts = contender.split(':');
    if parts.next() != Some("dlock") {
        return (None, None);
    }
    let host = parts.next().map(str::to_owned);
    match parts.next().and_then(|pid| pid.parse().ok()) {
        Some(pid) => (host, Some(pid)),
        None => (None, None),
    }
}
