//! A lock: a key and how to hold it. No I/O, and no memory of being held: that is the lease's.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::client::Client;
use crate::contract::{AcquireOptions, Mode};
use crate::engine::acquire;
use crate::engine::resource::Resource;
use crate::engine::tenure::Lease;
use crate::error::{Error, Kind, Result};
use crate::runtime::epoch;
use crate::runtime::op::Op;

/// A key and the options on which it is held. Cheap; may be shared and used again and again.
#[derive(Debug)]
pub struct Lock {
    client: Client,
    options: Arc<AcquireOptions>,
    fault: Option<Error>,
    /// The key in this process, since its first use. In a child of fork of no use, and leaked with what it leads to.
    resource: OnceLock<Arc<Resource>>,
}

impl Client {
    /// A lock on this key. No I/O; a key that can't be used is reported by [`Lock::check`] and by the first acquire.
    pub fn lock(&self, key: &str) -> Lock {
        let options = AcquireOptions { ttl: self.default_ttl(), ..AcquireOptions::new(key) };
        Lock::new(self.clone(), options)
    }
}

impl Lock {
    fn new(client: Client, options: AcquireOptions) -> Self {
        let mut lock = Self { client, options: Arc::new(options), fault: None, resource: OnceLock::new() };
        let named = lock.check_options().and_then(|()| lock.client.engine()?.name_of(&lock.options.key));
        match named {
            Ok(name) => Arc::make_mut(&mut lock.options).name = name,
            Err(error) => lock.fault = Some(error.with_backend(lock.client.backend())),
        }
        lock
    }

    /// Exclusive, shared, or permits of a limit: see [`Mode`]. Default: exclusive.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        self.with(|options| options.mode = mode)
    }

    /// The user's key.
    pub fn key(&self) -> &str {
        &self.options.key
    }

    /// The name under which the backend knows the key.
    pub fn backend_name(&self) -> &str {
        &self.options.name
    }

    /// The options.
    pub fn options(&self) -> &AcquireOptions {
        &self.options
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Checks that key and options can be used with this backend.
    ///
    /// # Errors
    /// `Invalid` and `Unsupported`, as the first acquire would give.
    pub fn check(&self) -> Result<()> {
        match &self.fault {
            Some(error) => Err(error.clone()),
            None => self.check_options(),
        }
    }

    /// Acquires it, waiting as the options say. The call has its place among the waiters from its first poll on.
    ///
    /// # Errors
    /// `Timeout`: busy until the deadline; `Backend`, `Invalid`, `Unsupported`.
    ///
    /// # Cancel safety
    /// Dropping the call leaves nothing held: it withdraws, and what it obtained is released.
    pub fn acquire(&self) -> Op<Lease> {
        self.here(|resource| acquire::acquire(resource, self.client.handle(), &self.options))
    }

    /// Acquires it, waiting that long in all and not as the options say (nor trying again as `retry` says); `None`: for
    /// ever; zero: try once.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub fn acquire_for(&self, wait: Option<Duration>) -> Op<Lease> {
        self.here(|resource| acquire::acquire_within(resource, self.client.handle(), &self.options, wait))
    }

    /// Tries once. `None`: busy. If only a withdrawal or a release of this process is in the way, or a claim of this
    /// process that it may hold beside is just being granted, waits for that, for at most 250 ms.
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
    pub fn holder_data(&self) -> Option<u64> {
        let holder = self.resource().ok()?.queue.holder()?;
        holder.is_held().then(|| holder.user_data.load(Ordering::Acquire))
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut AcquireOptions)) -> Self {
        change(Arc::make_mut(&mut self.options));
        self.leave();
        self
    }

    fn check_options(&self) -> Result<()> {
        let check = self.options.check(self.client.backend(), &self.client.capabilities());
        check.map_err(|error| error.with_key(self.options.key.clone()).with_backend(self.client.backend()))
    }

    /// Does this where the lock is in this process.
    fn here<T: Send + 'static>(&self, act: impl FnOnce(&Arc<Resource>) -> Op<T>) -> Op<T> {
        // The common case counts no reference.
        if let Some(resource) = self.known() {
            return act(resource);
        }
        match self.resource() {
            Ok(resource) => act(&resource),
            Err(error) => Op::ready(Err(error)),
        }
    }

    fn known(&self) -> Option<&Arc<Resource>> {
        self.resource.get().filter(|resource| resource.shared.epoch == epoch() && !self.client.is_closed())
    }

    fn resource(&self) -> Result<Arc<Resource>> {
        if let Some(resource) = self.known() {
            return Ok(resource.clone());
        }
        self.check()?;
        let resource = Arc::new(self.client.engine()?.resource(&self.options.name));
        // There is one already in a child of fork, which looks it up each time.
        let _ = self.resource.set(resource.clone());
        Ok(resource)
    }

    /// Forgets where it was: leaked in a child of fork, where it may be locked for ever.
    fn leave(&mut self) {
        if let Some(resource) = self.resource.take().filter(|resource| resource.shared.epoch != epoch()) {
            std::mem::forget(resource);
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
            options: self.options.clone(),
            fault: self.fault.clone(),
            resource: OnceLock::new(),
        }
    }
}
