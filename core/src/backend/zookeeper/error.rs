//! The meaning of ZooKeeper's error codes: the kind of error, whether another try can help, and what to do about it.

use super::protocol::code;
use crate::error::Error;
use crate::net::failure::{Failure, Outcome};

/// The name of the service in the texts of errors.
pub(super) const SERVICE: &str = "ZooKeeper";

/// Returns the error of a login that was refused.
pub(super) fn auth_failed(address: &str) -> Error {
    Error::refused(format!("ZooKeeper at {address} refuses the login: check username and password"))
}

/// Returns the failure that an answer's code stands for. The node's path tells what was asked for.
pub(super) fn of_code(found: i32, path: &str, names: &str) -> Failure {
    let at = format!("ZooKeeper at {names}");
    let refused = |text: String| Failure::not_applied(Error::refused(text));
    let for_now = |text: String, outcome| Failure { error: Error::unavailable(text), outcome };
    match found {
        code::SESSION_EXPIRED => {
            Failure { error: Error::unavailable(format!("{at} has ended the session")), outcome: Outcome::LeaseGone }
        }
        code::SESSION_MOVED | code::CONNECTION_LOSS | code::OPERATION_TIMEOUT | code::NOT_READ_ONLY => {
            for_now(format!("{at} can't serve the session now (code {found})"), Outcome::TryElsewhere)
        }
        code::THROTTLED => for_now(format!("{at} is overloaded and refuses requests"), Outcome::NotApplied),
        code::NO_AUTH => refused(format!(
            "{at} doesn't give this user the right to {path}: give it all rights on the nodes below the prefix, or log in \
             with username and password"
        )),
        code::AUTH_FAILED => Failure::not_applied(auth_failed(names)),
        code::NO_NODE => refused(format!("{at} has no node {path}: create the chroot of the URL first")),
        code::NO_CHILDREN_FOR_EPHEMERALS => {
            refused(format!("{at} has a node of another program in place of {path}: use another key or prefix"))
        }
        code::QUOTA_EXCEEDED => for_now(
            format!("{at} has a quota that leaves no room for {path}: raise it, or delete something"),
            Outcome::NotApplied,
        ),
        code::UNIMPLEMENTED => refused(format!("{at} doesn't know a request: use ZooKeeper 3.5 or newer")),
        other => refused(format!("{at} refuses a request for {path} with code {other}")),
    }
}
