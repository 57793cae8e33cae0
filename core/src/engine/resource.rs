//! A key in this process, and the client's handle that asks for it.

use std::sync::Arc;

use super::gate::{Gate, KeyQueue};
use super::shared::Shared;
use super::tenure::Tenure;
use crate::contract::Claim;
use crate::error::{Error, Kind, Result};
use crate::runtime::cancel::CancelToken;
use crate::runtime::exit;

/// A key in this process: what its clients share, and its local queue.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Arc<KeyQueue<Tenure>>,
}

impl Resource {
    /// The key of this name of the backend's.
    pub(crate) fn new(gate: &Arc<Gate<Tenure>>, name: &Arc<str>) -> Self {
        Self { shared: gate.shared.clone(), queue: gate.queue(name) }
    }

    /// The error with the claim's key and the backend's name.
    pub(super) fn in_context(&self, error: Error, claim: &Claim) -> Error {
        error.with_key(claim.options.key.clone()).with_backend(self.shared.name())
    }
}

/// One handle of a client.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    /// Tells it from every other of this process.
    pub(crate) id: u64,
    /// Fires when it is closed.
    pub(crate) closed: CancelToken,
}

impl Handle {
    /// Makes sure that this handle may still lock, also when the process is ending if `late`.
    ///
    /// # Errors
    /// `Invalid` when it was closed, or the process is ending.
    pub(crate) fn check_open(&self, late: bool) -> Result<()> {
        if !late && exit::is_ending() {
            return Err(Error::new(Kind::Invalid, "the process is ending: all clients are closed"));
        }
        if self.closed.is_cancelled() {
            return Err(Error::new(Kind::Invalid, "the client was closed while the call waited"));
        }
        Ok(())
    }
}
