//! What an etcd status means: which kind of error it is, whether trying again can help, whether the request was surely
//! not applied, and what to do about it.

use std::error::Error as _;

use etcd_client::Error as Etcd;
use tonic::{Code, Status};

use crate::error::Error;
use crate::net::Address;

/// What is known of a request that was not answered as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Surely not applied.
    Refused,
    /// Surely not applied here; another member may do it.
    Elsewhere,
    /// It may have been applied, or still be.
    Unknown,
    /// The lease that it names doesn't exist any more, so it can't be applied later either.
    NoLease,
}

/// A request that wasn't answered with a value.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What the caller is told.
    pub(super) error: Error,
    pub(super) fate: Fate,
}

impl Failure {
    pub(super) fn refused(error: Error) -> Self {
        Self { error, fate: Fate::Refused }
    }

    pub(super) fn unknown(error: Error) -> Self {
        Self { error, fate: Fate::Unknown }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// What a request failed with.
pub(super) fn of_request(error: &Etcd, address: &str) -> Failure {
    match error {
        Etcd::GRpcStatus(status) => of_status(status, address),
        other => Failure::unknown(Error::unavailable(format!("the connection to etcd at {address} failed: {other}"))),
    }
}

/// Whether the connection was gone before the request could be sent on it.
fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::NotConnected) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause, which says most.
fn root(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

fn of_status(status: &Status, address: &str) -> Failure {
    let said = status.message();
    let Some((fate, temporary, remedy)) = meaning(status.code(), said) else {
        let fate = if never_sent(status) { Fate::Elsewhere } else { Fate::Unknown };
        let error = match status.code() {
            Code::Unimplemented => Error::refused(format!("etcd at {address}: {said}; is it an etcd 3.4 or newer?")),
            _ => Error::unavailable(format!("the connection to etcd at {address} failed: {}", root(status))),
        };
        return Failure { error, fate };
    };
    let said = said.strip_prefix("etcdserver: ").unwrap_or(said);
    let error = Error::refused(format!("etcd at {address} refused: {said} ({remedy})")).temporary(temporary);
    Failure { error, fate }
}

/// The table: of what the server says, what it means. `None`: it wasn't the server that spoke, or not of this.
fn meaning(code: Code, said: &str) -> Option<(Fate, bool, &'static str)> {
    const PERMISSION: &str = "the user needs permission to read and write the keys that begin with the lock's name";
    const LOGIN: &str = "check username and password";
    let has = |part: &str| said.contains(part);
    let known = match code {
        _ if has("requested lease not found") => (Fate::NoLease, true, "its lease has ended"),
        _ if has("database space exceeded") => {
            (Fate::Refused, true, "raise quota-backend-bytes or compact and defragment, then disarm the alarm")
        }
        _ if has("too many requests") => (Fate::Refused, true, "it is overloaded"),
        _ if has("has been compacted") => (Fate::Refused, true, "it was compacted in between"),
        _ if has("no leader") || has("not supported for learner") => (Fate::Elsewhere, true, "it can't serve now"),
        _ if has("corrupt") => (Fate::Elsewhere, false, "its data is damaged"),
        _ if has("revision of auth store is old") || has("invalid auth token") => {
            (Fate::Elsewhere, true, "the login has to be repeated")
        }
        _ if has("leader changed") || has("request timed out") || has("server stopped") || has("unhealthy cluster") => {
            (Fate::Unknown, true, "it may have been done all the same")
        }
        _ if has("authentication failed") || has("user name not found") => (Fate::Refused, false, LOGIN),
        _ if has("authentication is not enabled") => (Fate::Refused, false, "leave out username and password"),
        _ if has("user name is empty") => (Fate::Refused, false, "it asks for username and password"),
        Code::PermissionDenied => (Fate::Refused, false, PERMISSION),
        _ if has("too large") => (Fate::Refused, false, "raise its limit, or shorten what is sent"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange if has("etcdserver: ") => {
            (Fate::Refused, false, "an answer that was not expected")
        }
        Code::ResourceExhausted if has("etcdserver: ") => (Fate::Refused, true, "it is overloaded"),
        _ if has("etcdserver: ") => (Fate::Unknown, true, "it may have been done all the same"),
        _ => return None,
    };
    Some(known)
}

/// What reaching a server failed with.
pub(super) fn of_io(error: &std::io::Error, address: &Address) -> Error {
    use std::io::ErrorKind as Io;
    let text = match error.kind() {
        Io::ConnectionRefused => {
            format!("etcd at {address} refuses the connection; is it running there, and is the address right?")
        }
        // Of rustls: a certificate that isn't trusted, a name that doesn't fit, a server without TLS.
        Io::InvalidData | Io::UnexpectedEof => {
            return Error::refused(format!(
                "etcd at {address} can't be reached by TLS: {error}; check ca, cert, key and sni, and whether the \
                 server has TLS on this port"
            ))
            // Where it worked before, files that are being replaced don't fit for a moment.
            .temporary(address.reached());
        }
        _ => format!("etcd at {address} can't be reached: {error}"),
    };
    Error::unavailable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: Code, said: &str) -> (Fate, bool) {
        let failure = of_status(&Status::new(code, said), "e:2379");
        (failure.fate, failure.error.is_temporary())
    }

    #[test]
    fn what_the_server_says_is_told_apart() {
        for (code, said, fate, temporary) in [
            (Code::NotFound, "etcdserver: requested lease not found", Fate::NoLease, true),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Fate::Refused, true),
            (Code::ResourceExhausted, "etcdserver: too many requests", Fate::Refused, true),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Fate::Refused, true),
            (Code::Unavailable, "etcdserver: no leader", Fate::Elsewhere, true),
            (Code::Unavailable, "etcdserver: rpc not supported for learner", Fate::Elsewhere, true),
            (Code::Unavailable, "etcdserver: leader changed", Fate::Unknown, true),
            (Code::Unavailable, "etcdserver: request timed out", Fate::Unknown, true),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost", Fate::Unknown, true),
            (Code::Unavailable, "etcdserver: server stopped", Fate::Unknown, true),
            (Code::PermissionDenied, "etcdserver: permission denied", Fate::Refused, false),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Fate::Refused,
                false,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", Fate::Refused, false),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", Fate::Refused, false),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Fate::Elsewhere, true),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Fate::Elsewhere, true),
            (Code::InvalidArgument, "etcdserver: request is too large", Fate::Refused, false),
            (Code::DataLoss, "etcdserver: corrupt cluster", Fate::Elsewhere, false),
            (Code::Unknown, "etcdserver: something new", Fate::Unknown, true),
            (Code::Unavailable, "transport error", Fate::Unknown, true),
            (Code::DeadlineExceeded, "context deadline exceeded", Fate::Unknown, true),
            (Code::Cancelled, "", Fate::Unknown, true),
            (Code::Internal, "h2 protocol error", Fate::Unknown, true),
            (Code::Unimplemented, "unknown service", Fate::Unknown, false),
        ] {
            assert_eq!(judged(code, said), (fate, temporary), "{code:?} {said}");
        }
    }

    #[test]
    fn an_error_says_what_to_do() {
        let failure = of_status(&Status::new(Code::PermissionDenied, "etcdserver: permission denied"), "e:2379");
        let text = failure.error.to_string();
        assert!(text.contains("e:2379") && text.contains("needs permission") && !text.contains("etcdserver"), "{text}");
    }
}
