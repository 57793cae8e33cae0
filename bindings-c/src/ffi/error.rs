//! Statuses and errors: the numbers of the core's error kinds, and the details of an error.

use std::ffi::{CString, c_char};
use std::ptr;

use dlock::Kind;

use super::{Handled, c_text, catch_panic, free, get};
use crate::handle::{self, Table};

/// The result of a call. The numbers never change.
#[repr(C)]
#[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "as C writes them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    DLOCK_OK = 0,
    /// The lock was busy until the deadline, or the given time has passed.
    DLOCK_TIMEOUT = 1,
    /// The caller cancelled the acquire.
    DLOCK_CANCELLED = 2,
    /// The lease no longer owns its lock, or can't be proven to own it.
    DLOCK_LOST = 3,
    /// Nothing is held: the lease was released, or was made before a fork.
    DLOCK_NOT_HELD = 4,
    /// The backend can't be reached, refuses the request or is overloaded.
    DLOCK_BACKEND = 5,
    /// A key, option, URL, configuration or handle that can't be used.
    DLOCK_INVALID = 6,
    /// The backend doesn't support the request. The message names the backends that do.
    DLOCK_UNSUPPORTED = 7,
    /// A defect of this library.
    DLOCK_INTERNAL = 8,
    /// The caller itself holds the key, so the wait could never end.
    DLOCK_DEADLOCK = 9,
}

/// The table of all statuses, by number: the core's kind and the text of `dlock_strerror` for each.
const ALL: [(Status, Option<Kind>, &std::ffi::CStr); 10] = [
    (Status::DLOCK_OK, None, c"done"),
    (Status::DLOCK_TIMEOUT, Some(Kind::Timeout), c"busy until the deadline"),
    (Status::DLOCK_CANCELLED, Some(Kind::Cancelled), c"cancelled"),
    (Status::DLOCK_LOST, Some(Kind::Lost), c"the lock was lost"),
    (Status::DLOCK_NOT_HELD, Some(Kind::NotHeld), c"nothing is held"),
    (Status::DLOCK_BACKEND, Some(Kind::Backend), c"the backend failed"),
    (Status::DLOCK_INVALID, Some(Kind::Invalid), c"an argument that can't be used"),
    (Status::DLOCK_UNSUPPORTED, Some(Kind::Unsupported), c"not supported by this backend"),
    (Status::DLOCK_INTERNAL, Some(Kind::Internal), c"a defect of dlock"),
    (Status::DLOCK_DEADLOCK, Some(Kind::Deadlock), c"the caller holds the key itself"),
];

const _: () = {
    assert!(ALL.len() == Kind::ALL.len() + 1, "a status for every kind");
    let mut number = 0;
    while number < ALL.len() {
        assert!(ALL[number].0 as usize == number);
        assert!(match ALL[number].1 {
            None => number == 0,
            Some(kind) => kind as usize == number && Kind::ALL[number - 1] as usize == number,
        });
        number += 1;
    }
};

impl From<Kind> for Status {
    fn from(kind: Kind) -> Self {
        ALL[kind as usize].0
    }
}

/// An error: its status, message, key and backend, and a flag that is set if trying again can help.
pub struct Error {
    status: Status,
    temporary: bool,
    message: CString,
    key: Option<CString>,
    backend: Option<CString>,
}

impl Handled for Error {
    const NAME: &'static str = "error";

    fn table() -> &'static Table<Self> {
        static TABLE: Table<Error> = Table::new(handle::Kind::Error);
        &TABLE
    }
}

impl From<dlock::Error> for Error {
    fn from(error: dlock::Error) -> Self {
        Self {
            status: error.kind().into(),
            temporary: error.is_temporary(),
            message: c_text(error.to_string()),
            key: error.key().map(c_text),
            backend: error.backend().map(c_text),
        }
    }
}

/// Reads from an error. Returns `otherwise` if there is no error.
fn read<T: Copy>(error: *mut Error, otherwise: T, read: impl FnOnce(&Error) -> T) -> T {
    catch_panic(otherwise, || get(error).map_or(otherwise, |error| read(&error)))
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// Returns the status of an error. Returns DLOCK_OK for NULL and DLOCK_INVALID for a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_status(error: *mut Error) -> Status {
    let otherwise = if error.is_null() { Status::DLOCK_OK } else { Status::DLOCK_INVALID };
    read(error, otherwise, |error| error.status)
}

/// Returns the message of an error: the cause with the values, the limit and the remedy. The message contains no
/// secrets. It is valid until dlock_error_free. Never returns NULL: the message is "no error" for NULL and bad handles.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_message(error: *mut Error) -> *const c_char {
    read(error, c"no error".as_ptr(), |error| error.message.as_ptr())
}

/// Returns the key of an error, as the caller gave it. The text is valid until dlock_error_free. Returns NULL if the
/// error concerns no key.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_key(error: *mut Error) -> *const c_char {
    read(error, ptr::null(), |error| pointer(&error.key))
}

/// Returns the name of the backend of an error. The text is valid until dlock_error_free. Returns NULL if the error
/// concerns no backend.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_backend(error: *mut Error) -> *const c_char {
    read(error, ptr::null(), |error| pointer(&error.backend))
}

/// Returns 1 if trying again can help, and 0 if not.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_temporary(error: *mut Error) -> i32 {
    read(error, 0, |error| error.temporary.into())
}

/// Frees an error. Does nothing for NULL and bad handles.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_free(error: *mut Error) {
    free(error);
}

/// A status that C passes: any number.
type AnyStatus = i32;

/// Returns a short text for a status. Static. Never returns NULL.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_strerror(status: AnyStatus) -> *const c_char {
    let known = usize::try_from(status).ok().and_then(|number| ALL.get(number));
    known.map_or(c"no status of dlock", |(_, _, text)| text).as_ptr()
}

/// Returns the version of the running library. DLOCK_VERSION is the version of the header. Static.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
