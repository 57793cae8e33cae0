//! The meaning of the errors of MySQL and MariaDB: the kind of error, whether another try can help, and what to do.

use mysql_async::{Error as DriverError, ServerError};

use crate::error::Error;
use crate::net::failure::{Failure, Outcome, connection_lost};

/// The name of the service in the texts of errors.
pub(super) const SERVICE: &str = "MySQL";

/// Returns the code of an error that the server has sent.
pub(super) fn code(error: &DriverError) -> Option<u16> {
    if let DriverError::Server(error) = error { Some(error.code) } else { None }
}

/// Returns true if the connection can't be used any more.
pub(super) fn ends_connection(error: &DriverError) -> bool {
    // The session was killed, or closed after its wait_timeout.
    error.is_fatal() || code(error).is_some_and(|code| matches!(code, 1053 | 1927 | 3169 | 4031))
}

/// Returns the failure of a statement, sent to this address.
pub(super) fn of(error: &DriverError, address: &str) -> Failure {
    match error {
        DriverError::Server(error) => of_server(error, address),
        // What the driver shows of other errors may be a packet of the login.
        DriverError::Io(error) => Failure::in_doubt(connection_lost(SERVICE, address, error)),
        _ => Failure::in_doubt(connection_lost(SERVICE, address, &"it is closed, or no MySQL answers there")),
    }
}

/// Returns true if the server has sent an error of one of these codes.
pub(super) fn has_code(failure: &Failure, codes: &[u16]) -> bool {
    codes.iter().any(|code| failure.error.message().contains(&format!("(error {code}: ")))
}

/// Returns true if the server refused a further session.
pub(super) fn is_full(error: &Error) -> bool {
    error.is_temporary() && error.message().contains(FULL)
}

/// The words of the error of a server that takes no more sessions.
const FULL: &str = "takes no more connections";

fn of_server(error: &ServerError, address: &str) -> Failure {
    let at = format!("{SERVICE} at {address}");
    let (code, message) = (error.code, &error.message);
    let said = format!("(error {code}: {message})");
    let refused = |text: String| Failure::not_applied(Error::refused(text));
    let for_now = |text: String, outcome| Failure { error: Error::unavailable(text), outcome };
    match code {
        1698 => refused(format!(
            "{at} refuses the login {said}: a user who is known by the operating system's user has to come by ?socket="
        )),
        1045 | 2059 | 3118 | 4151 => refused(format!("{at} refuses the login: check username and password {said}")),
        1044 | 1142 | 1143 | 1227 | 1370 => refused(format!("{at} doesn't give this user the right {said}: grant it")),
        3159 | 4073 => refused(format!("{at} serves only clients with TLS {said}: use mysqls://")),
        1049 => refused(format!("{at} has no such database {said}: create it, or name another one in the URL")),
        1146 => refused(format!("{at} has no table for leases {said}")),
        1040 | 1129 | 1203 | 1226 => for_now(
            format!("{at} {FULL} {said}: raise max_connections or max_user_connections there"),
            Outcome::NotApplied,
        ),
        1290 | 1792 | 1836 => {
            for_now(format!("{at} is read-only {said}: name the server that takes writes"), Outcome::TryElsewhere)
        }
        1235 if message.contains("WSREP") => refused(galera(address)),
        1053 | 1077 | 1927 | 3169 | 4031 => for_now(format!("{at} has ended the session {said}"), Outcome::LeaseGone),
        1205 | 1213 | 1317 | 1969 | 3024 | 3058 | 3572 => {
            for_now(format!("{at} has stopped a statement {said}"), Outcome::NotApplied)
        }
        1064 => Failure::not_applied(Error::refused(format!("{at} doesn't understand a statement {said}"))),
        _ => refused(format!("{at} refuses a statement {said}")),
    }
}

/// Returns the refusal of a Galera cluster.
pub(super) fn galera(address: &str) -> String {
    format!(
        "{SERVICE} at {address} is a node of a Galera cluster, where GET_LOCK locks on one node only: use ?mode=table, or a \
         server of its own"
    )
}

/// Returns the refusal of a group of servers.
pub(super) fn several_primaries(address: &str) -> String {
    format!(
        "{SERVICE} at {address} is one of a group of which several take writes, and GET_LOCK locks on one of them only: use a \
         group with one primary, or a server of its own"
    )
}

/// Returns the error of an address that leads to several servers.
pub(super) fn several_servers(address: &str) -> Error {
    Error::unavailable(format!(
        "{SERVICE} at {address} is several servers, or another one than a moment ago, and GET_LOCK locks on one of them only: \
         name one server"
    ))
}

/// Returns the refusal of a pooler.
pub(super) fn pooler(address: &str) -> String {
    format!(
        "there is a pooler before {SERVICE} at {address} (ProxySQL or MaxScale, perhaps), which changes the session under a \
         lock: name the server itself, or use ?mode=table"
    )
}
