//! The part that the clients of one configuration share in one process, below everything that holds a lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::outage::Outage;
use super::timer::Timer;
use crate::clock::Instant;
use crate::config::Config;
use crate::contract::{AcquireOptions, Backend, Capabilities};
use crate::error::Result;
use crate::observe::event;
use crate::runtime::cancel::CancelToken;
use crate::runtime::{self, epoch};

/// A backend, and what is known of it.
pub(crate) struct Shared {
    pub(crate) epoch: u32,
    /// Tells it from the others of this process.
    pub(crate) number: u32,
    pub(crate) config: Config,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) capabilities: Capabilities,
    /// See [`Backend::renews`].
    renews: bool,
    pub(crate) outage: Outage,
    pub(crate) timer: Arc<Timer>,
    /// Fires when the process ends.
    pub(crate) ending: CancelToken,
}

impl Shared {
    pub(crate) fn new(
        number: u32,
        config: Config,
        backend: Arc<dyn Backend>,
        capabilities: Capabilities,
        timer: Arc<Timer>,
    ) -> Self {
        Self {
            epoch: epoch(),
            number,
            renews: backend.renews(),
            config,
            backend,
            capabilities,
            outage: Outage::new(),
            timer,
            ending: CancelToken::default(),
        }
    }

    /// The backend's name.
    pub(crate) fn name(&self) -> &'static str {
        self.config.schema().name
    }

    /// The limit of an exchange with the backend, and of an outage.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout()
    }

    /// Returns true if a lease with these options has no end of its own, because the process is the lease.
    pub(crate) fn is_unexpiring(&self, options: &AcquireOptions) -> bool {
        self.capabilities.local && options.auto_renew
    }

    /// Returns true if the watchdog renews a lease with these options.
    pub(crate) fn is_renewed(&self, options: &AcquireOptions) -> bool {
        options.auto_renew && self.renews
    }

    /// The time from which a backend says that its countdown runs, of an answer that came at `now`. It can't be later:
    /// a lease would be believed for longer than it lives.
    pub(crate) fn not_in_the_future(&self, since: Instant, now: Instant) -> Instant {
        if mutant!("validity-from-receipt") {
            return now;
        }
        if since > now {
            let ahead = since - now;
            event::warn(self.name(), &format!("an answer was dated {ahead:?} in the future; it counts from now"));
        }
        since.min(now)
    }

    /// Makes sure that the runtime runs, if a lease with these options needs it.
    ///
    /// # Errors
    /// `Backend`, temporary, when the runtime can't be started.
    pub(crate) fn ensure_runtime(&self, options: &AcquireOptions) -> Result<()> {
        let ends = !self.is_unexpiring(options) || options.max_hold.is_some();
        match (ends, self.capabilities.local) {
            // Nothing else of its acquire asks the runtime.
            (true, true) => runtime::started(),
            (false, _) if !self.is_renewed(options) => Ok(()),
            // Without a system call, which would cost a file's lock a quarter more.
            _ => runtime::handle().map(drop),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.config.url()).finish()
    }
}
