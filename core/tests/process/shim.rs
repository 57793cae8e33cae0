//! The system's functions that a test has hang or fail: this program's come before those of the C library.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// How many questions for names that begin with `hang` have no answer yet.
pub static HANGING: AtomicU32 = AtomicU32::new(0);
/// Whether no thread can be started.
pub static NO_THREADS: AtomicBool = AtomicBool::new(false);

fn next(name: &CStr) -> *mut c_void {
    // SAFETY: looks up a name; the C library has it.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null());
    found
}

type Resolve =
    unsafe extern "C" fn(*const c_char, *const c_char, *const libc::addrinfo, *mut *mut libc::addrinfo) -> c_int;

#[unsafe(no_mangle)]
unsafe extern "C" fn getaddrinfo(
    host: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    found: *mut *mut libc::addrinfo,
) -> c_int {
    // SAFETY: as this function's caller promises to the C library's.
    unsafe {
        if !host.is_null() && CStr::from_ptr(host).to_bytes().starts_with(b"hang") {
            HANGING.fetch_add(1, Ordering::SeqCst);
            loop {
                std::thread::sleep(Duration::from_secs(3_600));
            }
        }
        transmute::<*mut c_void, Resolve>(next(c"getaddrinfo"))(host, service, hints, found)
    }
}

type Start = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    extern "C" fn(*mut c_void) -> *mut c_void,
    *mut c_void,
) -> c_int;

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    run: extern "C" fn(*mut c_void) -> *mut c_void,
    with: *mut c_void,
) -> c_int {
    if NO_THREADS.load(Ordering::SeqCst) {
        return libc::EAGAIN;
    }
    // SAFETY: as this function's caller promises to the C library's.
    unsafe { transmute::<*mut c_void, Start>(next(c"pthread_create"))(thread, attributes, run, with) }
}
