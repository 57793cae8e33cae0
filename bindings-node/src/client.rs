//! The calls of a client, for JavaScript.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use dlock::{Config, Lease, Lock, Op, limits, registry};
use napi::bindgen_prelude::{BigInt, Object, Result, ToNapiValue, Unknown};
use napi_derive::napi;

use crate::bridge::Caller;
use crate::handles::Client;
use crate::options::{self, Given, in_millis};

/// The number of calls of `register`. When it changes, services that JavaScript remembers may be old.
static REGISTERED: AtomicU32 = AtomicU32::new(0);

/// A contender: a holder of a key or a waiter for it. An unknown value is null.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Contender {
    pub held: bool,
    pub token: Option<String>,
    pub label: Option<String>,
    pub host: Option<String>,
    pub pid: Option<u32>,
    pub fence: Option<BigInt>,
    pub age: Option<f64>,
    pub ttl: Option<f64>,
}

/// The capabilities of a backend.
#[napi(object, object_from_js = false)]
pub struct Capabilities {
    pub fence: bool,
    pub ttl: bool,
    pub fifo: bool,
    pub shared: bool,
    pub permits: bool,
    pub handoff: bool,
    pub processes: bool,
    pub fork: bool,
    pub min_ttl: f64,
    pub guarantee: &'static str,
}

/// A key that this process holds or waits for.
#[napi(object, object_from_js = false)]
pub struct Entry {
    pub name: String,
    pub held: bool,
}

/// The name of this process's clients of one configuration, and the keys that they hold or wait for.
#[napi(object, object_from_js = false)]
pub struct Snapshot {
    pub client_id: String,
    pub all: Vec<Entry>,
}

impl From<dlock::ContenderInfo> for Contender {
    fn from(contender: dlock::ContenderInfo) -> Self {
        Self {
            held: contender.held,
            token: contender.token,
            label: contender.label,
            host: contender.host,
            pid: contender.pid,
            fence: contender.fence.map(BigInt::from),
            age: contender.age.map(in_millis),
            ttl: contender.ttl.map(in_millis),
        }
    }
}

impl From<dlock::Capabilities> for Capabilities {
    fn from(can: dlock::Capabilities) -> Self {
        Self {
            fence: can.fence,
            ttl: can.ttl,
            fifo: can.fifo,
            shared: can.shared,
            permits: can.permits,
            handoff: can.handoff,
            processes: can.processes,
            fork: can.fork,
            min_ttl: in_millis(can.min_ttl),
            guarantee: can.guarantee,
        }
    }
}

fn opened(caller: &Caller, client: dlock::Result<dlock::Client>) -> Result<i64> {
    let client = Client { client: caller.or_throw(client)?, last: std::cell::RefCell::default() };
    Ok(caller.half().clients.borrow_mut().insert(client))
}

/// Returns the shared client of a service, or the shared default client. Calls that name no client use it.
#[napi(catch_unwind)]
pub fn service(caller: Caller, name: Option<String>) -> Result<i64> {
    opened(&caller, registry::shared(name.as_deref()))
}

#[napi(catch_unwind)]
pub fn connect_default(caller: Caller) -> Result<i64> {
    opened(&caller, registry::client(None))
}

#[napi(catch_unwind)]
pub fn connect_url(caller: Caller, url: String) -> Result<i64> {
    opened(&caller, dlock::Client::connect(&url))
}

#[napi(catch_unwind)]
pub fn connect_file(caller: Caller, path: String) -> Result<i64> {
    opened(&caller, registry::from_file(Path::new(&path)))
}

#[napi(catch_unwind)]
pub fn connect_to(caller: Caller, backend: String, given: Vec<Given>) -> Result<i64> {
    let config = options::connection(&backend, given).and_then(|given| Config::new(&backend, given));
    opened(&caller, config.and_then(dlock::Client::open))
}

#[napi(catch_unwind)]
pub fn register(caller: Caller, service: String, client: i64) -> Result<()> {
    with(&caller, client, |client| registry::register(&service, client))?;
    REGISTERED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

#[napi(catch_unwind)]
pub fn registered() -> u32 {
    REGISTERED.load(Ordering::Acquire)
}

/// Forgets a client whose object is gone.
#[napi(catch_unwind)]
pub fn forget(caller: Caller, client: i64) -> Result<()> {
    let client = caller.half().clients.borrow_mut().remove(client);
    drop(client);
    Ok(())
}

fn with<T>(caller: &Caller, client: i64, act: impl FnOnce(&dlock::Client) -> dlock::Result<T>) -> Result<T> {
    let done = caller.half().clients.borrow().get(client).and_then(|client| act(&client.client));
    caller.or_throw(done)
}

fn call<T: Send + 'static, V: ToNapiValue>(
    caller: &Caller,
    client: i64,
    begin: impl FnOnce(&dlock::Client) -> Op<T>,
    convert: impl FnOnce(&Caller, T) -> V + Send + 'static,
) -> Result<Unknown<'static>> {
    let op = caller.half().clients.borrow().get(client).map(|client| begin(&client.client));
    caller.settle(op, convert)
}

/// Begins a call with the lock on a key. A lock without options is kept for the next call.
fn locking<T: Send + 'static>(
    caller: &Caller,
    client: i64,
    key: &str,
    given: Option<Object<'_>>,
    act: impl FnOnce(&Lock) -> Op<T>,
) -> dlock::Result<Op<T>> {
    let clients = caller.half().clients.borrow();
    let client = clients.get(client)?;
    if let Some(given) = given {
        return Ok(act(&options::apply(client.client.lock(key), &given)?));
    }
    let mut last = client.last.borrow_mut();
    let lock = last.take().filter(|lock| lock.key() == key).unwrap_or_else(|| client.client.lock(key));
    Ok(act(last.insert(lock)))
}

fn granted(caller: &Caller, lease: Lease) -> i64 {
    caller.half().leases.borrow_mut().insert(lease)
}

#[napi(catch_unwind)]
pub fn acquire(caller: Caller, client: i64, name: String, given: Option<Object<'_>>) -> Result<Unknown<'static>> {
    caller.settle(locking(&caller, client, &name, given, Lock::acquire), granted)
}

#[napi(catch_unwind)]
pub fn try_acquire(caller: Caller, client: i64, name: String, given: Option<Object<'_>>) -> Result<Unknown<'static>> {
    let granted = |caller: &Caller, lease: Option<Lease>| lease.map(|lease| granted(caller, lease));
    caller.settle(locking(&caller, client, &name, given, Lock::try_acquire), granted)
}

#[napi(catch_unwind)]
pub fn query(caller: Caller, client: i64) -> Result<Snapshot> {
    with(&caller, client, |client| {
        let all = client.query()?.into_iter().map(|(name, held)| Entry { name, held }).collect();
        Ok(Snapshot { client_id: client.identity()?, all })
    })
}

#[napi(catch_unwind)]
pub fn contenders(caller: Caller, client: i64, name: String) -> Result<Unknown<'static>> {
    call(
        &caller,
        client,
        |client| client.contenders(&name),
        |_, all| all.into_iter().map(Contender::from).collect::<Vec<_>>(),
    )
}

#[napi(catch_unwind)]
pub fn break_lock(caller: Caller, client: i64, name: String) -> Result<Unknown<'static>> {
    call(&caller, client, |client| client.break_lock(&name), |_, broken| broken)
}

#[napi(catch_unwind)]
pub fn ping(caller: Caller, client: i64) -> Result<Unknown<'static>> {
    call(&caller, client, |client| client.ping(), |_, ()| ())
}

#[napi(catch_unwind)]
pub fn close(caller: Caller, client: i64) -> Result<Unknown<'static>> {
    call(&caller, client, |client| client.close(limits::CLOSE), |_, ()| ())
}

#[napi(catch_unwind)]
pub fn closed(caller: Caller, client: i64) -> Result<bool> {
    with(&caller, client, |client| Ok(client.is_closed()))
}

#[napi(catch_unwind)]
pub fn backend(caller: Caller, client: i64) -> Result<&'static str> {
    with(&caller, client, |client| Ok(client.backend()))
}

/// Returns the client's URL without secrets.
#[napi(catch_unwind)]
pub fn url(caller: Caller, client: i64) -> Result<String> {
    with(&caller, client, |client| Ok(client.config().url()))
}

#[napi(catch_unwind)]
pub fn capabilities(caller: Caller, client: i64) -> Result<Capabilities> {
    with(&caller, client, |client| Ok(client.capabilities().in_bindings().into()))
}

/// Returns the error of a lease that was released.
#[napi(catch_unwind)]
pub fn released(caller: Caller, client: i64, name: String) -> Result<Unknown<'static>> {
    let backend = with(&caller, client, |client| Ok(client.backend()))?;
    caller.error(&dlock::Error::released().with_key(name).with_backend(backend))
}
