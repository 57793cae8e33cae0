//! The capabilities of a backend.

use std::time::Duration;

/// The capabilities and promises of a backend; the documented answer to "can this one …".
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Capabilities {
    /// Every grant carries a greater number.
    pub fence: bool,
    /// The backend itself ends the lock of a dead or frozen holder after the ttl.
    pub ttl: bool,
    /// First come, first served across processes.
    pub fifo: bool,
    /// Shared claims.
    pub shared: bool,
    /// One-of-N permits.
    pub permits: bool,
    /// Takes part in local hand-off.
    pub handoff: bool,
    /// Processes of one host exclude one another.
    pub processes: bool,
    /// A child of fork can use it after its parent did.
    pub fork: bool,
    /// Answers on the caller's thread, and its lease lives as long as this process keeps it.
    pub local: bool,
    /// The smallest ttl it can keep.
    pub min_ttl: Duration,
    /// The basis of exclusion, in one sentence for the guarantee table.
    pub guarantee: &'static str,
}

impl Capabilities {
    /// The part that the other languages can use. They have no call for shared locks and permits yet.
    #[doc(hidden)]
    #[must_use]
    pub fn in_bindings(self) -> Self {
        Self { shared: false, permits: false, ..self }
    }
}
