//! Clients: connecting, names, capabilities and the end of a client; and the shutdown of all clients.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use dlock::{Kind, Result, registry};

use super::error::{Error, Status};
use super::{
    Handled, Out, c_text, catch_panic, free, get, guard, insert, known_size, limit, millis, optional_text, text,
};
use crate::handle::{self, Table};

/// A client of one backend. Clients of equal configuration share the connection, the local queue and the watchdog.
pub struct Client(pub(crate) dlock::Client);

impl Handled for Client {
    const NAME: &'static str = "client";

    fn table() -> &'static Table<Self> {
        static TABLE: Table<Client> = Table::new(handle::Kind::Client);
        &TABLE
    }
}

/// The capabilities of a backend. Begin with DLOCK_CAPABILITY_SET_INIT. Each int32_t member is 1 or 0.
#[repr(C)]
pub struct CapabilitySet {
    /// sizeof(dlock_capability_set), set by DLOCK_CAPABILITY_SET_INIT.
    pub size: usize,
    /// 1 if every grant has a fencing token that is greater than all earlier ones of its key.
    pub fence: i32,
    /// 1 if the backend itself ends a lock that isn't renewed.
    pub ttl: i32,
    /// 1 if the order is first come, first served across processes.
    pub fifo: i32,
    /// 1 if shared locks are supported.
    pub shared: i32,
    /// 1 if locks with several holders are supported.
    pub permits: i32,
    /// 1 if the option handoff is supported.
    pub handoff: i32,
    /// 1 if locks exclude other processes.
    pub processes: i32,
    /// 1 if a child of fork may use a client that its parent has used.
    pub fork: i32,
    /// The shortest ttl that the backend can keep.
    pub min_ttl_ms: i64,
    /// The guarantee of the backend, in one sentence. Static.
    pub guarantee: *const c_char,
}

/// The sizes that the struct has had since the first release.
const SIZES: &[usize] = &[size_of::<CapabilitySet>()];

/// Returns the text as C text that is never freed. Equal texts are kept once.
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

/// Creates a client for a URL. NULL means the default client: the client that DLOCK_* variables and config.yaml
/// configure, or else files of this user on this host. Does no I/O. I/O begins with the first call, or with dlock_ping.
/// Clients of one URL share everything. Each call gives a client of its own, so closing it doesn't end the leases of
/// another client.
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

/// Creates the client that a YAML file configures. The file is read strictly.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_connect_config(
    path: *const c_char,
    client: *mut *mut Client,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: as this function's.
    unsafe { connected(client, err, || registry::from_file(text("path", path)?.as_ref())) }
}

/// Creates a client for a name. The name is registered, or DLOCK_* variables or config.yaml enable it.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_connect_service(
    service: *const c_char,
    client: *mut *mut Client,
    err: *mut *mut Error,
) -> Status {
    // SAFETY: as this function's.
    unsafe { connected(client, err, || registry::client(Some(text("service", service)?))) }
}

/// Registers a client under a name. dlock_connect_service then finds the client anywhere in the process, also after
/// dlock_client_free.
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

/// Ends all leases of this client. They become lost, their holders are notified, and the locks are released. The
/// client's waiting acquires and every later call end with DLOCK_INVALID. The handle stays until dlock_client_free.
/// Other clients of the same URL are not affected. timeout_ms: the time for the backend to confirm the releases; -1: no
/// limit. DLOCK_BACKEND: the backend didn't confirm all of them, and the other locks end by their ttl.
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

/// Frees a client's handle. The leases and acquires of the client continue. Does nothing for NULL and bad handles.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_client_free(client: *mut Client) {
    free(client);
}

/// Returns the name of the backend: "memory", "file", "redis" or "etcd". Static. Returns NULL for a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_backend(client: *mut Client) -> *const c_char {
    catch_panic(ptr::null(), || get(client).map_or(ptr::null(), |client| fixed(client.0.backend())))
}

/// Copies the capabilities of the backend into a struct that begins with DLOCK_CAPABILITY_SET_INIT.
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

/// Closes every client of this process for good, before an orderly exit. All leases become lost to their holders, and
/// the locks are released. All waiting acquires and every later acquire end with DLOCK_INVALID. timeout_ms: the time
/// for the backends to confirm the releases; -1: no limit. DLOCK_TIMEOUT: not all were confirmed, and the other locks
/// end by their ttl. exit() does the same by itself, within 1 s.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_shutdown(timeout_ms: i64) -> Status {
    let shut_down = || {
        let within = limit("timeout_ms", timeout_ms)?.unwrap_or(Duration::MAX);
        if dlock::shutdown(within) { Ok(()) } else { Err(dlock::Error::new(Kind::Timeout, "not all was confirmed")) }
    };
    // SAFETY: no error is asked for.
    unsafe { guard(ptr::null_mut(), shut_down) }
}
