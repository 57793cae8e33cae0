//! The meaning of Redis errors: their kind, whether another try can help, whether the request was surely not
//! applied, and what to do about it.

use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use crate::error::Error;
use crate::net::address::Address;
use crate::net::failure::{self, Failure, Outcome};

/// The name of the service in the texts of errors.
pub(super) const SERVICE: &str = "Redis";

/// Returns true if the server doesn't know the script by its hash.
pub(super) fn no_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// Returns the failure of a request.
pub(super) fn of_request(error: &RedisError, address: &str) -> Failure {
    if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
        let outcome = match code(error) {
            "READONLY" | "MASTERDOWN" | "LOADING" | "CLUSTERDOWN" | "NOREPLICAS" => Outcome::TryElsewhere,
            _ => Outcome::NotApplied,
        };
        return Failure { error: of_server(error, address), outcome };
    }
    Failure::in_doubt(failure::connection_lost(SERVICE, address, error))
}

/// Returns the code of a server's answer. If a script failed, returns the code of the command in it, which servers
/// before version 7 put into the text.
fn code(error: &RedisError) -> &str {
    let code = error.code().unwrap_or("ERR");
    let inner = error.detail().filter(|said| code == "ERR" && said.starts_with("Error running script"));
    let inner = inner.and_then(|said| said.split_once(": -")?.1.split_once(' '));
    inner.map_or(code, |(code, _)| code)
}

/// Returns the error of a connection that failed.
pub(super) fn of_connect(error: &RedisError, address: &Address) -> Error {
    match error.kind() {
        ErrorKind::AuthenticationFailed => refused_login(&address.to_string(), error),
        ErrorKind::Server(_) | ErrorKind::Extension => of_server(error, &address.to_string()),
        _ => match cause(error) {
            // A server reports a missing client certificate only after the handshake.
            Some(io) if io.kind() == std::io::ErrorKind::InvalidData => failure::of_io(SERVICE, io, address),
            _ => Error::unavailable(format!(
                "Redis at {address} can't be reached: {error}; is it stopping, or has it as many clients as maxclients \
                 allows?"
            )),
        },
    }
}

/// Returns the I/O error behind a Redis error, if there is one.
fn cause(error: &RedisError) -> Option<&std::io::Error> {
    let cause = std::error::Error::source(error)?;
    cause.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?.downcast_ref()
}

/// Returns the error for a server's answer that is no value.
fn of_server(error: &RedisError, address: &str) -> Error {
    let said = format!("{} {}", error.code().unwrap_or("ERR"), error.detail().unwrap_or_default());
    let (temporary, remedy) = match code(error) {
        "NOAUTH" | "WRONGPASS" => return refused_login(address, error),
        "NOPERM" => (
            false,
            "the user needs the commands EVAL, EVALSHA, SCRIPT LOAD, TIME and those of the scripts on the lock's keys \
             and on dlock:*, see the README of the Redis backend",
        ),
        "LOADING" => (true, "it still loads its data"),
        "READONLY" => (true, "it is a replica: connect to the master"),
        "NOREPLICAS" => (true, "it has fewer replicas than min-replicas-to-write asks for"),
        "OOM" => (true, "it has no memory left: raise maxmemory or remove keys"),
        "MISCONF" => (true, "it can't write its data to disk and refuses writes"),
        "BUSY" => (true, "a script has been running there for too long"),
        "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => (true, "it is not ready to serve"),
        "MOVED" | "ASK" | "CROSSSLOT" => (false, "it is part of a cluster, which this backend doesn't do yet"),
        _ if said.contains("max number of clients") => (true, "it has as many clients as maxclients allows"),
        _ => (false, "an answer that was not expected"),
    };
    Error::refused(format!("Redis at {address} refused: {said} ({remedy})")).temporary(temporary)
}

/// Returns the error of a login that was refused.
fn refused_login(address: &str, error: &RedisError) -> Error {
    if error.code() == Some("NOAUTH") {
        return Error::refused(format!(
            "Redis at {address} asks for a password, and none is given (redis://:password@…)"
        ));
    }
    let said = error.detail().unwrap_or("authentication failed");
    Error::refused(format!("Redis at {address} refused the login: {said} (check username and password)"))
}
