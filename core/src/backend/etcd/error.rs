//! The meaning of etcd statuses: the kind of error, whether another try can help, whether the request was surely
//! not applied, and what to do about it.

use std::error::Error as _;

use etcd_client::Error as Etcd;
use tonic::{Code, Status};

use crate::error::Error;
use crate::net::failure::{Failure, Outcome, connection_lost};

/// The name of the service in the texts of errors.
pub(super) const SERVICE: &str = "etcd";

/// Returns the failure of a request.
pub(super) fn of_request(error: &Etcd, address: &str) -> Failure {
    match error {
        Etcd::GRpcStatus(status) => of_status(status, address),
        other => Failure::in_doubt(connection_lost(SERVICE, address, other)),
    }
}

/// Returns true if the error is the server's answer, so that the connection is as good as before.
pub(super) fn is_answer(error: &Etcd) -> bool {
    matches!(error, Etcd::GRpcStatus(status) if status.message().starts_with("etcdserver: "))
}

/// Returns true if the connection was gone before the request could be sent on it.
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

/// Returns the text of the innermost cause, which says most.
fn root(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

/// Returns the failure that a status stands for.
fn of_status(status: &Status, address: &str) -> Failure {
    let said = status.message();
    let Some((outcome, temporary, remedy)) = meaning(status.code(), said) else {
        let outcome = if never_sent(status) { Outcome::TryElsewhere } else { Outcome::InDoubt };
        let error = match status.code() {
            Code::Unimplemented => Error::refused(format!("etcd at {address}: {said}; is it an etcd 3.4 or newer?")),
            _ => connection_lost(SERVICE, address, &root(status)),
        };
        return Failure { error, outcome };
    };
    let said = said.strip_prefix("etcdserver: ").unwrap_or(said);
    let error = Error::refused(format!("etcd at {address} refused: {said} ({remedy})")).temporary(temporary);
    Failure { error, outcome }
}

/// Returns the meaning of a server's text. `None`: the text is not the server's, or not known.
fn meaning(code: Code, said: &str) -> Option<(Outcome, bool, &'static str)> {
    const PERMISSION: &str = "the user needs permission to read and write the keys that begin with the lock's name";
    const LOGIN: &str = "check username and password";
    let has = |part: &str| said.contains(part);
    let known = match code {
        _ if has("requested lease not found") => (Outcome::LeaseGone, true, "its lease has ended"),
        _ if has("database space exceeded") => {
            (Outcome::NotApplied, true, "raise quota-backend-bytes or compact and defragment, then disarm the alarm")
        }
        _ if has("too many requests") => (Outcome::NotApplied, true, "it is overloaded"),
        _ if has("has been compacted") => (Outcome::NotApplied, true, "it was compacted in between"),
        _ if has("no leader") || has("not supported for learner") => {
            (Outcome::TryElsewhere, true, "it can't serve now")
        }
        _ if has("corrupt") => (Outcome::TryElsewhere, false, "its data is damaged"),
        _ if has("revision of auth store is old") || has("invalid auth token") => {
            (Outcome::TryElsewhere, true, "the login has to be repeated")
        }
        _ if has("leader changed") || has("request timed out") || has("server stopped") || has("unhealthy cluster") => {
            (Outcome::InDoubt, true, "it may have been done all the same")
        }
        _ if has("authentication failed") || has("user name not found") => (Outcome::NotApplied, false, LOGIN),
        _ if has("authentication is not enabled") => (Outcome::NotApplied, false, "leave out username and password"),
        _ if has("user name is empty") => (Outcome::NotApplied, false, "it asks for username and password"),
        Code::PermissionDenied => (Outcome::NotApplied, false, PERMISSION),
        _ if has("too large") => (Outcome::NotApplied, false, "raise its limit, or shorten what is sent"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange if has("etcdserver: ") => {
            (Outcome::NotApplied, false, "an answer that was not expected")
        }
        Code::ResourceExhausted if has("etcdserver: ") => (Outcome::NotApplied, true, "it is overloaded"),
        _ if has("etcdserver: ") => (Outcome::InDoubt, true, "it may have been done all the same"),
        _ => return None,
    };
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: Code, said: &str) -> (Outcome, bool) {
        let failure = of_status(&Status::new(code, said), "e:2379");
        (failure.outcome, failure.error.is_temporary())
    }

    #[test]
    fn what_the_server_says_is_told_apart() {
        for (code, said, outcome, temporary) in [
            (Code::NotFound, "etcdserver: requested lease not found", Outcome::LeaseGone, true),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Outcome::NotApplied, true),
            (Code::ResourceExhausted, "etcdserver: too many requests", Outcome::NotApplied, true),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Outcome::NotApplied, true),
            (Code::Unavailable, "etcdserver: no leader", Outcome::TryElsewhere, true),
            (Code::Unavailable, "etcdserver: rpc not supported for learner", Outcome::TryElsewhere, true),
            (Code::Unavailable, "etcdserver: leader changed", Outcome::InDoubt, true),
            (Code::Unavailable, "etcdserver: request timed out", Outcome::InDoubt, true),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
                Outcome::InDoubt,
                true,
            ),
            (Code::Unavailable, "etcdserver: server stopped", Outcome::InDoubt, true),
            (Code::PermissionDenied, "etcdserver: permission denied", Outcome::NotApplied, false),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Outcome::NotApplied,
                false,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", Outcome::NotApplied, false),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", Outcome::NotApplied, false),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Outcome::TryElsewhere, true),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Outcome::TryElsewhere, true),
            (Code::InvalidArgument, "etcdserver: request is too large", Outcome::NotApplied, false),
            (Code::DataLoss, "etcdserver: corrupt cluster", Outcome::TryElsewhere, false),
            (Code::Unknown, "etcdserver: something new", Outcome::InDoubt, true),
            (Code::Unavailable, "transport error", Outcome::InDoubt, true),
            (Code::DeadlineExceeded, "context deadline exceeded", Outcome::InDoubt, true),
            (Code::Cancelled, "", Outcome::InDoubt, true),
            (Code::Internal, "h2 protocol error", Outcome::InDoubt, true),
            (Code::Unimplemented, "unknown service", Outcome::InDoubt, false),
        ] {
            assert_eq!(judged(code, said), (outcome, temporary), "{code:?} {said}");
        }
    }

    #[test]
    fn an_error_says_what_to_do() {
        let failure = of_status(&Status::new(Code::PermissionDenied, "etcdserver: permission denied"), "e:2379");
        let text = failure.error.to_string();
        assert!(text.contains("e:2379") && text.contains("needs permission") && !text.contains("etcdserver"), "{text}");
    }
}
