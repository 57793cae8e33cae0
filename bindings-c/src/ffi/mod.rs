//! The helpers of every function. They convert handles, text and times, and they report errors and panics.
//!
//! Only this folder uses raw pointers of the caller. The introduction of `dlock.h` has the rule for them: a pointer is
//! NULL, or points to what its type names for as long as the call lasts.

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

/// A value that handles stand for.
pub trait Handled: Sized + Send + Sync + 'static {
    /// The name of the type in errors.
    const NAME: &'static str;

    /// Returns the table of all values of the type.
    fn table() -> &'static Table<Self>;
}

/// Makes a new handle for the value.
pub(crate) fn insert<T: Handled>(value: T) -> *mut T {
    ptr::without_provenance_mut(T::table().insert(value))
}

/// Returns the value that the handle stands for.
pub(crate) fn get<T: Handled>(handle: *mut T) -> Result<Used<T>> {
    T::table().get(handle.addr()).ok_or_else(|| {
        let why = if handle.is_null() { "is NULL" } else { "was freed, or never was one" };
        dlock::Error::invalid(format!("the handle of the {} {why}", T::NAME))
    })
}

/// Ends the handle and returns its value for the last time. Returns `None` for a handle that has ended.
pub(crate) fn remove<T: Handled>(handle: *mut T) -> Option<Used<T>> {
    T::table().remove(handle.addr())
}

/// Ends the handle and drops its value.
pub(crate) fn free<T: Handled>(handle: *mut T) {
    catch_panic((), || drop(remove(handle)));
}

/// Makes the call. Returns `otherwise` if the call panics.
pub(crate) fn catch_panic<T: Copy>(otherwise: T, call: impl FnOnce() -> T) -> T {
    cancel::off(|| catch_unwind(AssertUnwindSafe(call)).unwrap_or(otherwise))
}

/// Makes the call. Writes the error of the call, or of a panic in it, to `err`. Frees the former error in `err` first.
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

/// The place for a result.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Checks that the caller has passed a variable, and returns it.
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

    /// Writes as much of the value as the caller has room for.
    pub(crate) fn put_bytes(&self, value: &T, size: usize) {
        debug_assert!(size <= size_of::<T>());
        // SAFETY: not NULL, and the caller says that it has so many bytes.
        unsafe { ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), self.0.cast(), size) }
    }
}

/// A caller's pointer that is passed to the caller's callback, on another thread.
pub(crate) struct User(*mut c_void);

// SAFETY: this library never reads through the pointer. The caller has agreed that callbacks run on other threads.
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

/// Returns the caller's text, which must not be NULL.
pub(crate) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise is the same.
    let given = unsafe { optional_text(what, text) }?;
    given.ok_or_else(|| dlock::Error::invalid(format!("{what} is NULL: pass a text in UTF-8")))
}

/// Returns the caller's text, or `None` for NULL.
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

/// Returns the text for C, without its NUL characters.
pub(crate) fn c_text(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

/// Returns a duration of so many milliseconds.
pub(crate) fn time(what: &str, ms: i64) -> Result<Duration> {
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| Unit::Millis.no_duration(what, ms))
}

/// Returns a limit of so many milliseconds. `None`: no limit, which is -1 in C.
pub(crate) fn limit(what: &str, ms: i64) -> Result<Option<Duration>> {
    if ms == -1 { Ok(None) } else { time(what, ms).map(Some) }
}

/// Returns the duration in milliseconds, at most `i64::MAX`.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Checks the `size` of a struct of the caller. It has to be the size in this header or in an older one.
pub(crate) fn known_size(what: &str, size: usize, known: &[usize]) -> Result<()> {
    if known.contains(&size) {
        return Ok(());
    }
    Err(dlock::Error::invalid(format!(
        "size of {size} in {what} is of no header up to {}: begin with its _INIT, and run with the library compiled for",
        env!("CARGO_PKG_VERSION")
    )))
}
