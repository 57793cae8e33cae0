//! What a Redis error means: which kind it is, whether trying again can help, whether the request was surely not
//! applied, and what to do about it.

use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::link::Sent;
use crate::error::Error;
use crate::net::Address;

/// A request that wasn't answered with a value.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What the caller is told.
    pub(super) error: Error,
    /// The sendings that the server may have done all the same.
    pub(super) unanswered: Vec<Sent>,
    /// Whether it was asked of a server that doesn't do it now: another one may.
    pub(super) elsewhere: bool,
}

/// What became of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not done.
    Refused,
    /// Not done here, but perhaps by the server that the address leads to now.
    Elsewhere,
    /// It may have been done.
    Unknown,
}

impl Failure {
    /// It was not sent, or was refused.
    pub(super) fn refused(error: Error) -> Self {
        Self { error, unanswered: Vec::new(), elsewhere: false }
    }
}

/// Whether the server doesn't know the script by its hash.
pub(super) fn no_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// What a request failed with, and what became of it.
pub(super) fn of_request(error: &RedisError, address: &str) -> (Error, Fate) {
    if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
        let fate = match code(error) {
            "READONLY" | "MASTERDOWN" | "LOADING" | "CLUSTERDOWN" | "NOREPLICAS" => Fate::Elsewhere,
            _ => Fate::Refused,
        };
        return (of_server(error, address), fate);
    }
    (Error::unavailable(format!("the connection to Redis at {address} failed: {error}")), Fate::Unknown)
}

/// The code of a server's answer; where a script failed, that of the command in it. Before version 7 a server puts that
/// one into the text.
fn code(error: &RedisError) -> &str {
    let code = error.code().unwrap_or("ERR");
    let inner = error.detail().filter(|said| code == "ERR" && said.starts_with("Error running script"));
    let inner = inner.and_then(|said| said.split_once(": -")?.1.split_once(' '));
    inner.map_or(code, |(code, _)| code)
}

/// What connecting failed with.
pub(super) fn of_connect(error: &RedisError, address: &Address) -> Error {
    match error.kind() {
        ErrorKind::AuthenticationFailed => refused_login(&address.to_string(), error),
        ErrorKind::Server(_) | ErrorKind::Extension => of_server(error, &address.to_string()),
        _ => match cause(error) {
            // The certificate that a server asks for is missed only after the handshake.
            Some(io) if io.kind() == std::io::ErrorKind::InvalidData => of_io(io, address),
            _ => Error::unavailable(format!(
                "Redis at {address} can't be reached: {error}; is it stopping, or has it as many clients as maxclients \
                 allows?"
            )),
        },
    }
}

/// The connection's own error, if it was that.
fn cause(error: &RedisError) -> Option<&std::io::Error> {
    let cause = std::error::Error::source(error)?;
    cause.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?.downcast_ref()
}

/// What reaching the server failed with.
pub(super) fn of_io(error: &std::io::Error, address: &Address) -> Error {
    use std::io::ErrorKind as Io;
    let text = match error.kind() {
        Io::ConnectionRefused => {
            format!("Redis at {address} refuses the connection; is it running there, and is the address right?")
        }
        // Of rustls: a certificate that isn't trusted, a name that doesn't fit, a server without TLS.
        Io::InvalidData | Io::UnexpectedEof => {
            return Error::refused(format!(
                "Redis at {address} can't be reached by TLS: {error}; check ca, cert, key and sni, and whether the \
                 server has TLS on this port"
            ))
            // Where it worked before, files that are being replaced don't fit for a moment.
            .temporary(address.reached());
        }
        _ => format!("Redis at {address} can't be reached: {error}"),
    };
    Error::unavailable(text)
}

/// What the server answered instead of a value.
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

fn refused_login(address: &str, error: &RedisError) -> Error {
    if error.code() == Some("NOAUTH") {
        return Error::refused(format!(
            "Redis at {address} asks for a password, and none is given (redis://:password@…)"
        ));
    }
    let said = error.detail().unwrap_or("authentication failed");
    Error::refused(format!("Redis at {address} refused the login: {said} (check username and password)"))
}
