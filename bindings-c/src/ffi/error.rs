//! Status and error: the core's kinds as numbers, and what goes with them.

use std::ffi::{CString, c_char};
use std::ptr;

use dlock::Kind;

use super::{Handled, c_text, catch_panic, free, get};
use crate::handle::{self, Table};

/// How a call ended. The numbers never change.
#[repr(C)]
#[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "as C writes them")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    DLOCK_OK = 0,
    /// The lock was busy until the deadline, or the time given was up.
    DLOCK_TIMEOUT = 1,
    /// The caller withdrew.
    DLOCK_CANCELLED = 2,
    /// The lease is no longer ours, or can't be proven to be.
    DLOCK_LOST = 3,
    /// Nothing is held: the lease was released, or made before a fork.
    DLOCK_NOT_HELD = 4,
    /// The backend can't be reached, refuses or is overloaded.
    DLOCK_BACKEND = 5,
    /// A key, option, URL, configuration or handle that can't be used.
    DLOCK_INVALID = 6,
    /// This backend can't do it; the message names those that can.
    DLOCK_UNSUPPORTED = 7,
    /// A defect of this library.
    DLOCK_INTERNAL = 8,
    /// The caller itself holds the key, so the wait could never end.
    DLOCK_DEADLOCK = 9,
}

/// By number. The C names of the core's kinds, and what `dlock_strerror` says.
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

/// What went wrong: status, message, key, backend, and whether trying again can help.
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

/// Reads from an error; `otherwise` when there is none.
fn read<T: Copy>(error: *mut Error, otherwise: T, read: impl FnOnce(&Error) -> T) -> T {
    catch_panic(otherwise, || get(error).map_or(otherwise, |error| read(&error)))
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

/// What the error is. DLOCK_OK for NULL, DLOCK_INVALID for a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_status(error: *mut Error) -> Status {
    let otherwise = if error.is_null() { Status::DLOCK_OK } else { Status::DLOCK_INVALID };
    read(error, otherwise, |error| error.status)
}

/// What went wrong, with the values, the limit and the remedy; no secrets. Until dlock_error_free. Never NULL: "no error"
/// for NULL and bad handles.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_message(error: *mut Error) -> *const c_char {
    read(error, c"no error".as_ptr(), |error| error.message.as_ptr())
}

/// The key concerned, as given. Until dlock_error_free. NULL when it concerns none.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_key(error: *mut Error) -> *const c_char {
    read(error, ptr::null(), |error| pointer(&error.key))
}

/// The backend concerned. Until dlock_error_free. NULL when it concerns none.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_backend(error: *mut Error) -> *const c_char {
    read(error, ptr::null(), |error| pointer(&error.backend))
}

/// Whether trying again can help: 1 or 0.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_temporary(error: *mut Error) -> i32 {
    read(error, 0, |error| error.temporary.into())
}

/// Frees an error. NULL and bad handles: nothing.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_error_free(error: *mut Error) {
    free(error);
}

/// A status that C passes: any number.
type AnyStatus = i32;

/// A status in a few words. Static; never NULL.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_strerror(status: AnyStatus) -> *const c_char {
    let known = usize::try_from(status).ok().and_then(|number| ALL.get(number));
    known.map_or(c"no status of dlock", |(_, _, text)| text).as_ptr()
}

/// The version of the library that runs, as DLOCK_VERSION is that of the header. Static.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
