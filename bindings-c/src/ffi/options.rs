//! How a lock is held: the struct of options, and the core's lock that it describes.

use std::ffi::c_char;
use std::ptr;

use dlock::{Lock, Result};

use super::client::Client;
use super::{get, known_size, optional_text, text, time};

/// The options of an acquire. Begin with DLOCK_OPTIONS_INIT and change what shall differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    /// sizeof(dlock_options), set by DLOCK_OPTIONS_INIT.
    pub size: usize,
    /// How long the backend keeps the lock with no renewal, at least 100 (etcd 2000, MySQL 1000). 0: 30 s.
    pub ttl_ms: i64,
    /// How long to wait for the lock in all. 0: try once; -1, INIT: for ever.
    pub wait_ms: i64,
    /// After this long the lease is lost and deleted at the backend. 0: no limit.
    pub max_hold_ms: i64,
    /// With retry_tries: how far apart the tries are.
    pub retry_delay_ms: i64,
    /// Instead of waiting: at most so many tries. 0: wait as wait_ms says.
    pub retry_tries: u32,
    /// How many times in a row the lock may be passed on inside this process.
    pub handoff: u32,
    /// Whether the lease is renewed in the background, every ttl/3. 1, INIT, or 0.
    pub auto_renew: i32,
    /// First come, first served across processes. -1, INIT: as the backend does; 1: yes, or DLOCK_UNSUPPORTED; 0.
    pub fair: i32,
    /// The text that proves ownership, stored as given. NULL: unique to each acquisition.
    pub token: *const c_char,
    /// Free text shown by dlock_contenders. NULL: none.
    pub label: *const c_char,
}

/// DLOCK_OPTIONS_INIT.
const INIT: Options = Options {
    size: size_of::<Options>(),
    ttl_ms: 0,
    wait_ms: -1,
    max_hold_ms: 0,
    retry_delay_ms: 0,
    retry_tries: 0,
    handoff: 0,
    auto_renew: 1,
    fair: -1,
    token: ptr::null(),
    label: ptr::null(),
};

/// The sizes that the struct has had since the first release.
const SIZES: &[usize] = &[size_of::<Options>()];

/// The caller's options; what an older header doesn't have is as INIT says.
unsafe fn read(given: *const Options) -> Result<Options> {
    let mut options = INIT;
    if given.is_null() {
        return Ok(options);
    }
    // SAFETY: not NULL, so it points to at least the first member, and to as many bytes as that says.
    unsafe {
        let size = given.cast::<usize>().read();
        known_size("dlock_options", size, SIZES)?;
        ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut options).cast(), size);
    }
    Ok(options)
}

fn flag(what: &str, value: i32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(dlock::Error::invalid(format!("{what} of {value} is neither 0 nor 1"))),
    }
}

/// The lock that key and options describe.
pub(crate) unsafe fn lock(client: *mut Client, key: *const c_char, options: *const Options) -> Result<Lock> {
    let client = get(client)?;
    // SAFETY: as the caller promises.
    let (key, options) = unsafe { (text("key", key)?, read(options)?) };
    let mut lock = client.0.lock(key);
    if options.ttl_ms != 0 {
        lock = lock.ttl(time("ttl_ms", options.ttl_ms)?);
    }
    if options.wait_ms != -1 {
        lock = lock.wait(time("wait_ms", options.wait_ms)?);
    }
    if options.max_hold_ms != 0 {
        lock = lock.max_hold(time("max_hold_ms", options.max_hold_ms)?);
    }
    // A delay without tries is for the core to refuse.
    if (options.retry_tries, options.retry_delay_ms) != (0, 0) {
        lock = lock.retry((options.retry_tries, time("retry_delay_ms", options.retry_delay_ms)?));
    }
    if options.handoff != 0 {
        lock = lock.handoff(options.handoff);
    }
    if !flag("auto_renew", options.auto_renew)? {
        lock = lock.auto_renew(false);
    }
    if options.fair != -1 {
        lock = lock.fair(flag("fair", options.fair)?);
    }
    // SAFETY: as above, for the texts the options point to.
    let (token, label) = unsafe { (optional_text("token", options.token)?, optional_text("label", options.label)?) };
    if let Some(token) = token {
        lock = lock.token(token);
    }
    if let Some(label) = label {
        lock = lock.label(label);
    }
    Ok(lock)
}
