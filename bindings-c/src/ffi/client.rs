//! Clients: where they come from, what their backend can do, their end; and the end of them all.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use dlock::{Kind, Result, registry};

use super::error::{Error, Status};
use super::{
    Handled, Out, c_text, catch_panic, free, get, guard, insert, known_size, limit, millis, optional_text, text,
};
use crate::handle::{self, Table};

/// One backend, and what this process shares for it.
pub struct Client(pub(crate) dlock::Client);

impl Handled for Client {
    const NAME: &'static str = "client";

    fn table() -> &'static Table<Self> {
        static TABLE: Table<Client> = Table::new(handle::Kind::Client);
        &TABLE
    }
}

/// What a backend can do and promises; 1 or 0 each. Begin with DLOCK_CAPABILITY_SET_INIT.
#[repr(C)]
pub struct CapabilitySet {
    /// sizeof(dlock_capability_set), set by DLOCK_CAPABILITY_SET_INIT.
    pub size: usize,
    /// Every grant has a fencing token, greater than all before of its key.
    pub fence: i32,
    /// A lock that isn't renewed ends at the backend by itself.
    pub ttl: i32,
    /// First come, first served across processes.
    pub fifo: i32,
    /// Shared locks.
    pub shared: i32,
    /// Locks with several holders.
    pub permits: i32,
    /// The option handoff.
    pub handoff: i32,
    /// Locks exclude other processes.
    pub processes: i32,
    /// A client may be used in a child of fork after its parent has used it.
    pub fork: i32,
    /// The shortest ttl it can keep.
    pub min_ttl_ms: i64,
    /// What it guarantees, in a sentence. Static.
    pub guarantee: *const c_char,
}

/// The sizes that the struct has had since the first release.
const SIZES: &[usize] = &[size_of::<CapabilitySet>()];

/// Text that is kept for good, once.
fn fixed(text: &'static str) -> *const c_char {
    static ALL: boxcar::Vec<CString> = boxcar::Vec::new();
    let known = ALL.iter().find(|(_, known)| known.to_bytes() == text.as_bytes());
    known.map_or_else(|| ALL[ALL.push(c_text(text))].as_ptr(), |(_, known)| known.as_ptr())
}

unsafe fn connected(
    client: *mut *mut Client,
    err: *mut *mut Error,
    connect: impl FnOnce() -> Result<dlock::Client>,
) -> Status {
    let make = || {
        let out = Out::needed("client", client)?;
        out.put(insert(Client(connect()?)));
        Ok(())
    };
    // SAFETY: as the caller promises.
    unsafe { guard(err, make) }
}

/// The client for a URL; for NULL the default one, from DLOCK_* variables and config.yaml, or else files of this user on
/// this host. No I/O: that begins with the first call, or with dlock_ping. Clients of one URL share everything. Each call
/// gives a client of its own: to close it ends the leases of no other.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_connect(
    url: *const c_char,
    client: *mut *mut Client,
    err: *mut *mut Error,
) -> Status {
    let connect = || {
        // SAFETY: the caller passes NULL or a text.
        match unsafe { optional_text("url", url) }? {
            Some(url) => dlock::Client::connect(url),
            None => registry::client(None),
        }
    };
    // SAFETY: as this function's.
    unsafe { connected(client, err, connect) }
}

/// The client that a YAML file says, which is read strictly.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_connect_config(
    path: *const c_char,
    client: *mut *mut Client,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: as this function's.
    unsafe { connected(client, err, || registry::from_file(text("path", path)?.as_ref())) }
}

/// The client of this name: registered, or enabled by DLOCK_* variables or config.yaml.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_connect_service(
    service: *const c_char,
    client: *mut *mut Client,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: as this function's.
    unsafe { connected(client, err, || registry::client(Some(text("service", service)?))) }
}

/// Names a client, so that dlock_connect_service finds it anywhere in the process, also after dlock_client_free.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_register(
    service: *const c_char,
    client: *mut Client,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: as this function's.
    unsafe { guard(err, || registry::register(text("service", service)?, &get(client)?.0)) }
}

/// Checks that the backend answers.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_ping(client: *mut Client, err: *mut *mut Error) -> Status {
    // SAFETY: as this function's.
    unsafe { guard(err, || get(client)?.0.ping().wait()) }
}

/// Ends all leases of this client: they are lost to their holders, who are told, and given back. Ends its waiters with
/// DLOCK_INVALID, as it does every later call. The handle stays until dlock_client_free. Other clients of the same URL go
/// on. timeout_ms: for the backend to confirm; -1 without end. DLOCK_BACKEND when it doesn't: the locks end by their ttl.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_client_close(
    client: *mut Client,
    timeout_ms: i64,
    err: *mut *mut Error,
) -> Status {
    let close = || {
        let within = limit("timeout_ms", timeout_ms)?.unwrap_or(Duration::MAX);
        get(client)?.0.close(within).wait()
    };
    // SAFETY: as this function's.
    unsafe { guard(err, close) }
}

/// Frees a client's handle. Its leases and acquires go on. NULL and bad handles: nothing.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_client_free(client: *mut Client) {
    free(client);
}

/// The backend's name: "memory", "file", "redis". Static. NULL for a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_backend(client: *mut Client) -> *const c_char {
    catch_panic(ptr::null(), || get(client).map_or(ptr::null(), |client| fixed(client.0.backend())))
}

/// What the backend can do and promises, into a struct that begins with DLOCK_CAPABILITY_SET_INIT.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_capabilities(
    client: *mut Client,
    capabilities: *mut CapabilitySet,
    err: *mut *mut Error,
) -> Status {
    let tell = || {
        let out = Out::needed("capabilities", capabilities)?;
        // SAFETY: not NULL, so it points to at least the first member, and to as many bytes as that says.
        let size = unsafe { capabilities.cast::<usize>().read() };
        known_size("dlock_capability_set", size, SIZES)?;
        let can = get(client)?.0.capabilities().in_bindings();
        let all = CapabilitySet {
            size,
            fence: can.fence.into(),
            ttl: can.ttl.into(),
            fifo: can.fifo.into(),
            shared: can.shared.into(),
            permits: can.permits.into(),
            handoff: can.handoff.into(),
            processes: can.processes.into(),
            fork: can.fork.into(),
            min_ttl_ms: millis(can.min_ttl),
            guarantee: fixed(can.guarantee),
        };
        out.put_bytes(&all, size);
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { guard(err, tell) }
}

/// For an orderly exit: closes every client of this process, for good. All leases are lost to their holders and given
/// back, all waiters and every later acquire end with DLOCK_INVALID. timeout_ms: for the backends to confirm; -1 without
/// end. DLOCK_TIMEOUT when not all was confirmed: those locks end by their ttl. exit() does this by itself, within 1 s.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_shutdown(timeout_ms: i64) -> Status {
    let shut_down = || {
        let within = limit("timeout_ms", timeout_ms)?.unwrap_or(Duration::MAX);
        if dlock::shutdown(within) { Ok(()) } else { Err(dlock::Error::new(Kind::Timeout, "not all was confirmed")) }
    };
    // SAFETY: no error is asked for.
    unsafe { guard(ptr::null_mut(), shut_down) }
}
