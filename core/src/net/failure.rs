//! Requests that failed: their errors and outcomes, and the errors of reaching a server.

use std::fmt::Display;
use std::time::Duration;

use super::address::Address;
use crate::error::Error;

/// The outcome of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not applied.
    NotApplied,
    /// Not applied here. Another server, or the one that the address leads to now, may apply it.
    TryElsewhere,
    /// Perhaps applied, now or later.
    InDoubt,
    /// Not applied, now or later: the lease that it names doesn't exist any more.
    LeaseGone,
}

/// A request that was not answered with a value.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The caller's error.
    pub(crate) error: Error,
    pub(crate) outcome: Outcome,
}

impl Failure {
    /// Returns the failure of a request that was not applied.
    pub(crate) fn not_applied(error: Error) -> Self {
        Self { error, outcome: Outcome::NotApplied }
    }

    /// Returns the failure of a request that may have been applied.
    pub(crate) fn in_doubt(error: Error) -> Self {
        Self { error, outcome: Outcome::InDoubt }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Returns the error of a break that met another owner each time, until its time was over.
pub(crate) fn owner_changes(name: &str) -> Error {
    Error::unavailable(format!("{name:?} passes from owner to owner faster than a request; try again"))
}

/// Returns the error of a connection that was lost.
pub(crate) fn connection_lost(service: &str, address: &str, why: &dyn Display) -> Error {
    Error::unavailable(format!("the connection to {service} at {address} failed: {why}"))
}

/// Returns the error of a connection that was not completed in time; `option`: the one that sets the limit.
pub(crate) fn connect_timeout(service: &str, address: &Address, limit: Duration, option: &str) -> Error {
    Error::unavailable(format!(
        "{service} at {address} didn't complete a connection within {limit:?}; raise {option}, or see whether it is \
         overloaded or stopped{}",
        address.hint()
    ))
}

/// Returns the error of a server that could not be reached.
pub(crate) fn of_io(service: &str, error: &std::io::Error, address: &Address) -> Error {
    use std::io::ErrorKind as Io;
    let text = match error.kind() {
        Io::ConnectionRefused => {
            format!("{service} at {address} refuses the connection; is it running there, and is the address right?")
        }
        // Errors of rustls: a certificate that isn't trusted, a name that doesn't fit, a server without TLS.
        Io::InvalidData | Io::UnexpectedEof => {
            return Error::refused(format!(
                "{service} at {address} can't be reached by TLS: {error}; check ca, cert, key and sni, and whether the \
                 server has TLS on this port"
            ))
            // If TLS worked before, the files may be in the middle of a replacement.
            .temporary(address.reached());
        }
        _ => format!("{service} at {address} can't be reached: {error}"),
    };
    Error::unavailable(text)
}
