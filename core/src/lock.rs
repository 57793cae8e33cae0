//! A lock: a key and how to hold it. No I/O, and no memory of being held: that is the lease's.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::acquire;
use crate::claim::Terms;
use crate::client::{Client, Core};
use crate::error::{Error, Kind, Result};
use crate::gate::Slot;
use crate::lease::Lease;
use crate::op::Op;
use crate::runtime;

/// A key and the terms on which it is held. Cheap; may be shared and used again and again.
#[derive(Debug)]
pub struct Lock {
    client: Client,
    terms: Arc<Terms>,
    fault: Option<Error>,
    /// Where it was when it was used first. In a child of fork of no use, and leaked with what it leads to.
    site: OnceLock<Arc<Site>>,
}

/// Where the lock is in this process: its client's core and its key's place in the gate.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) core: Arc<Core>,
    pub(crate) slot: Arc<Slot>,
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $kind:ty => $value:expr;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(self, $name: $kind) -> Self {
            self.with(|terms| terms.$name = $value)
        })*
    };
}

impl Lock {
    pub(crate) fn new(client: Client, terms: Terms) -> Self {
        let mut lock = Self { client, terms: Arc::new(terms), fault: None, site: OnceLock::new() };
        let prefixed = match lock.client.config().prefix() {
            Some(prefix) => format!("{prefix}{}", lock.terms.key),
            None => lock.terms.key.to_string(),
        };
        match lock.check_terms().and_then(|()| lock.client.core()?.backend.encode(&prefixed)) {
            Ok(name) => Arc::make_mut(&mut lock.terms).name = name.into(),
            Err(error) => lock.fault = Some(error.with_service(lock.client.backend())),
        }
        lock
    }

    options! {
        /// How long the backend keeps the lock with no renewal. Default 30 s.
        ttl: Duration => ttl;
        /// How long to wait for the lock in all; zero: try once. Default: for ever.
        wait: Duration => Some(wait);
        /// Instead of waiting: at most so many attempts, so far apart.
        retry: (u32, Duration) => Some(retry);
        /// Whether the watchdog renews the lease, every ttl/3. Default true.
        renew: bool => renew;
        /// After this long the lease is lost and deleted at the backend. Default: no limit.
        max_hold: Duration => Some(max_hold);
        /// The text that proves ownership, stored as given. Default: unique to each acquisition.
        token: &str => Some(token.into());
        /// Free text shown by [`Client::holders`].
        label: &str => Some(label.into());
        /// First come, first served across processes. Default: as the backend does.
        fair: bool => Some(fair);
        /// How many times in a row the lock may be passed on inside this process. Default 0.
        handoff: u32 => handoff;
    }

    /// The user's key.
    pub fn key(&self) -> &str {
        &self.terms.key
    }

    /// The name under which the backend knows the key.
    pub fn backend_name(&self) -> &str {
        &self.terms.name
    }

    /// The terms.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether key and terms can be used with this backend.
    ///
    /// # Errors
    /// `Invalid` and `Unsupported`, as the first acquire would give.
    pub fn check(&self) -> Result<()> {
        match &self.fault {
            Some(error) => Err(error.clone()),
            None => self.check_terms(),
        }
    }

    /// Acquires it, waiting as the terms say. The call has its place among the waiters from its first poll on.
    ///
    /// # Errors
    /// `Timeout`: busy until the deadline; `Backend`, `Invalid`, `Unsupported`.
    ///
    /// # Cancel safety
    /// Dropping the call leaves nothing held: it withdraws, and what it obtained is released.
    pub fn acquire(&self) -> Op<Lease> {
        self.here(|site| acquire::start(site, &self.client, &self.terms))
    }

    /// Acquires it, waiting that long in all and not as the terms say (nor trying again as `retry` says); `None`: for
    /// ever; zero: try once.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub fn acquire_for(&self, wait: Option<Duration>) -> Op<Lease> {
        self.here(|site| acquire::begin(site, &self.client, &self.terms, wait))
    }

    /// Tries once. `None`: busy. If only a withdrawal or a release of this process is in the way, waits for it, for at most
    /// 250 ms.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), but for `Timeout`.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> Op<Option<Lease>> {
        self.acquire_for(Some(Duration::ZERO)).recover(|result| match result {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.kind() == Kind::Timeout => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// The number that a binding has set on the lease by which this process holds the key; `None` when it doesn't.
    pub fn holder_tag(&self) -> Option<u64> {
        let holder = self.site().ok()?.slot.holder()?;
        holder.is_held().then(|| holder.tag())
    }

    fn with(mut self, change: impl FnOnce(&mut Terms)) -> Self {
        change(Arc::make_mut(&mut self.terms));
        self.leave();
        self
    }

    fn check_terms(&self) -> Result<()> {
        let check = self.terms.check(self.client.backend(), &self.client.capability());
        check.map_err(|error| error.with_key(self.terms.key.clone()).with_service(self.client.backend()))
    }

    /// Does this where the lock is in this process.
    fn here<T: Send + 'static>(&self, act: impl FnOnce(&Arc<Site>) -> Op<T>) -> Op<T> {
        // The common case counts no reference.
        if let Some(site) = self.known() {
            return act(site);
        }
        match self.site() {
            Ok(site) => act(&site),
            Err(error) => Op::ready(Err(error)),
        }
    }

    fn known(&self) -> Option<&Arc<Site>> {
        self.site.get().filter(|site| site.core.epoch == runtime::epoch() && !self.client.is_closed())
    }

    fn site(&self) -> Result<Arc<Site>> {
        if let Some(site) = self.known() {
            return Ok(site.clone());
        }
        self.check()?;
        let core = self.client.core()?;
        let slot = core.gate.slot(&self.terms.name);
        let site = Arc::new(Site { core, slot });
        // There is one already in a child of fork, which looks it up each time.
        let _ = self.site.set(site.clone());
        Ok(site)
    }

    /// Forgets where it was: leaked in a child of fork, where it may be locked for ever.
    fn leave(&mut self) {
        if let Some(site) = self.site.take().filter(|site| site.core.epoch != runtime::epoch()) {
            std::mem::forget(site);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Clone for Lock {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            terms: self.terms.clone(),
            fault: self.fault.clone(),
            site: OnceLock::new(),
        }
    }
}
