//! What every function goes through: numbers to values and back, text and times, errors and panics out.
//!
//! The only folder with raw pointers. What may be done with them is said in the introduction of `dlock.h`: a pointer is
//! NULL, or points to what its type says for as long as the call lasts.

#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "said once, above and in dlock.h")]

pub mod acquire;
pub mod client;
pub mod error;
pub mod lease;
pub mod list;
pub mod log;
pub mod lost;
pub mod options;

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

use dlock::Result;
use dlock::options::Unit;

use crate::cancel;
use crate::handle::{Table, Used};
use error::{Error, Status};

/// What a handle stands for.
pub trait Handled: Sized + Send + Sync + 'static {
    /// What it is called in errors.
    const NAME: &'static str;

    /// Where all of its kind are.
    fn table() -> &'static Table<Self>;
}

/// A new handle on this.
pub(crate) fn insert<T: Handled>(value: T) -> *mut T {
    ptr::without_provenance_mut(T::table().insert(value))
}

/// What the handle stands for.
pub(crate) fn get<T: Handled>(handle: *mut T) -> Result<Used<T>> {
    T::table().get(handle.addr()).ok_or_else(|| {
        let why = if handle.is_null() { "is NULL" } else { "was freed, or never was one" };
        dlock::Error::invalid(format!("the handle of the {} {why}", T::NAME))
    })
}

/// Ends the handle. Not for the first time: nothing.
pub(crate) fn remove<T: Handled>(handle: *mut T) -> Option<Used<T>> {
    T::table().remove(handle.addr())
}

/// Ends the handle, and what it stands for.
pub(crate) fn free<T: Handled>(handle: *mut T) {
    catch_panic((), || drop(remove(handle)));
}

/// Makes the call; a panic in it gives this instead.
pub(crate) fn catch_panic<T: Copy>(otherwise: T, call: impl FnOnce() -> T) -> T {
    cancel::off(|| catch_unwind(AssertUnwindSafe(call)).unwrap_or(otherwise))
}

/// Makes the call; its error, or that of a panic in it, goes to `err`, whose former one is freed first.
pub(crate) unsafe fn guard(err: *mut *mut Error, call: impl FnOnce() -> Result<()>) -> Status {
    catch_panic(Status::DLOCK_INTERNAL, || {
        if !err.is_null() {
            // SAFETY: not NULL, so it points to a handle.
            drop(remove(unsafe { err.replace(ptr::null_mut()) }));
        }
        let Err(error) =
            catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(dlock::Error::panicked(&*panic)))
        else {
            return Status::DLOCK_OK;
        };
        let status = error.kind().into();
        if !err.is_null() {
            // SAFETY: as above.
            unsafe { err.write(insert(Error::from(error))) };
        }
        status
    })
}

/// Where a result goes.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// The caller's variable, which it must have.
    pub(crate) fn needed(what: &str, pointer: *mut T) -> Result<Self> {
        if pointer.is_null() {
            return Err(dlock::Error::invalid(format!("{what} is NULL: pass the address of a variable for it")));
        }
        Ok(Self(pointer))
    }

    pub(crate) fn put(&self, value: T) {
        // SAFETY: not NULL, so it points to a variable of the caller's; written, never read.
        unsafe { self.0.write(value) }
    }

    /// As much of the value as the caller has room for.
    pub(crate) fn put_bytes(&self, value: &T, size: usize) {
        debug_assert!(size <= size_of::<T>());
        // SAFETY: not NULL, and the caller says that it has so many bytes.
        unsafe { ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), self.0.cast(), size) }
    }
}

/// A caller's pointer that is given back to its callback, on another thread.
pub(crate) struct User(*mut c_void);

// SAFETY: never looked at here; that callbacks run on other threads is in the contract of who passes it.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    pub(crate) fn new(pointer: *mut c_void) -> Self {
        Self(pointer)
    }

    pub(crate) fn pointer(&self) -> *mut c_void {
        self.0
    }
}

/// The caller's text, which it must have given.
pub(crate) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise is the same.
    let given = unsafe { optional_text(what, text) }?;
    given.ok_or_else(|| dlock::Error::invalid(format!("{what} is NULL: pass a text in UTF-8")))
}

/// The caller's text, if there is one.
pub(crate) unsafe fn optional_text<'a>(what: &str, text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, so it points to text that ends with NUL and stays as it is during the call.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|error| {
        let at = error.valid_up_to();
        dlock::Error::invalid(format!(
            "{what} is not UTF-8: the byte {:#04x} at {at} fits nothing; encode it first",
            text.to_bytes().get(at).copied().unwrap_or_default()
        ))
    })
}

/// Text for C, which ends at the first NUL.
pub(crate) fn c_text(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

/// So many milliseconds.
pub(crate) fn time(what: &str, ms: i64) -> Result<Duration> {
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| Unit::Millis.no_duration(what, ms))
}

/// So many milliseconds, or without end: -1.
pub(crate) fn limit(what: &str, ms: i64) -> Result<Option<Duration>> {
    if ms == -1 { Ok(None) } else { time(what, ms).map(Some) }
}

/// As milliseconds, for what can be longer than they count.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Checks the `size` of a struct of the caller's: of this header's, or of an older one's.
pub(crate) fn known_size(what: &str, size: usize, known: &[usize]) -> Result<()> {
    if known.contains(&size) {
        return Ok(());
    }
    Err(dlock::Error::invalid(format!(
        "size of {size} in {what} is of no header up to {}: begin with its _INIT, and run with the library compiled for",
        env!("CARGO_PKG_VERSION")
    )))
}
