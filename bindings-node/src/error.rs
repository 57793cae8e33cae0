//! The core's kinds of error in JavaScript: the class and the code of each kind.

use dlock::Kind;

/// Returns the class name of a kind, and its code.
fn class_of(kind: Kind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        Kind::Timeout => ("LockTimeoutError", "ERR_DLOCK_TIMEOUT"),
        Kind::Lost => ("LockLostError", "ERR_DLOCK_LOST"),
        Kind::NotHeld => ("NotHeldError", "ERR_DLOCK_NOT_HELD"),
        Kind::Backend => ("BackendError", "ERR_DLOCK_BACKEND"),
        Kind::Invalid => ("InvalidArgumentError", "ERR_DLOCK_INVALID"),
        Kind::Unsupported => ("UnsupportedError", "ERR_DLOCK_UNSUPPORTED"),
        Kind::Internal => ("InternalError", "ERR_DLOCK_INTERNAL"),
        Kind::Deadlock => ("DeadlockError", "ERR_DLOCK_DEADLOCK"),
        // A cancelled call throws the reason of its AbortSignal.
        _ => return None,
    })
}

/// Returns the table from which the JavaScript half makes the classes: kind, name, code.
pub(crate) fn kinds() -> Vec<Vec<&'static str>> {
    let known = Kind::ALL.into_iter().filter_map(|kind| Some((kind, class_of(kind)?)));
    known.map(|(kind, (name, code))| vec![kind.name(), name, code]).collect()
}
