//! What JavaScript asks of a client.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dlock::{Config, Kind, Lease, Lock, Op, registry};
use napi::Env;
use napi::bindgen_prelude::{BigInt, Result, ToNapiValue, Unknown};
use napi_derive::napi;

use crate::bridge::{Port, port};
use crate::options::{self, Given, Terms, in_millis};

/// How long `close` waits for the release of what is held.
const CLOSE: Duration = Duration::from_secs(5);

/// How often `register` was called, so that what is remembered of services can be known to be old.
static REGISTERED: AtomicU32 = AtomicU32::new(0);

/// A client, with the lock it was asked for last: most callers ask for the same one again.
pub(crate) struct Client {
    client: dlock::Client,
    last: RefCell<Option<Lock>>,
}

/// Somebody who holds a key or waits for it; what isn't known is null.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Holder {
    pub held: bool,
    pub token: Option<String>,
    pub label: Option<String>,
    pub host: Option<String>,
    pub pid: Option<u32>,
    pub fence: Option<BigInt>,
    pub age: Option<f64>,
    pub ttl: Option<f64>,
}

/// What a backend can do and promises.
#[napi(object, object_from_js = false)]
pub struct Capability {
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

/// What this process's clients of one configuration are called, and what they hold and wait for.
#[napi(object, object_from_js = false)]
pub struct Snapshot {
    pub client_id: String,
    pub all: Vec<Entry>,
}

impl From<dlock::Holder> for Holder {
    fn from(holder: dlock::Holder) -> Self {
        Self {
            held: holder.held,
            token: holder.token,
            label: holder.label,
            host: holder.host,
            pid: holder.pid,
            fence: holder.fence.map(BigInt::from),
            age: holder.age.map(in_millis),
            ttl: holder.ttl.map(in_millis),
        }
    }
}

impl From<dlock::Capability> for Capability {
    fn from(can: dlock::Capability) -> Self {
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

fn opened(env: Env, client: dlock::Result<dlock::Client>) -> Result<u32> {
    let port = port(env)?;
    let client = Client { client: port.told(client)?, last: RefCell::default() };
    Ok(port.clients.borrow_mut().insert(client))
}

#[napi(catch_unwind)]
pub fn service(env: Env, name: Option<String>) -> Result<u32> {
    opened(env, registry::client(name.as_deref()))
}

#[napi(catch_unwind)]
pub fn connect_url(env: Env, url: String) -> Result<u32> {
    opened(env, dlock::Client::connect(&url))
}

#[napi(catch_unwind)]
pub fn connect_file(env: Env, path: String) -> Result<u32> {
    opened(env, registry::from_file(Path::new(&path)))
}

#[napi(catch_unwind)]
pub fn connect_to(env: Env, backend: String, given: Vec<Given>) -> Result<u32> {
    let config = options::connection(&backend, given).and_then(|given| Config::new(&backend, given));
    opened(env, config.and_then(dlock::Client::open))
}

#[napi(catch_unwind)]
pub fn register(env: Env, service: String, client: u32) -> Result<()> {
    with(env, client, |client| registry::register(&service, client))?;
    REGISTERED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

#[napi(catch_unwind)]
pub fn registered() -> u32 {
    REGISTERED.load(Ordering::Acquire)
}

/// The object of the client is gone.
#[napi(catch_unwind)]
pub fn forget(env: Env, client: u32) -> Result<()> {
    let client = port(env)?.clients.borrow_mut().remove(client);
    drop(client);
    Ok(())
}

fn with<T>(env: Env, client: u32, act: impl FnOnce(&dlock::Client) -> dlock::Result<T>) -> Result<T> {
    let port = port(env)?;
    let done = port.clients.borrow().get(client).and_then(|client| act(&client.client));
    port.told(done)
}

fn call<T: Send + 'static, V: ToNapiValue>(
    env: Env,
    client: u32,
    begin: impl FnOnce(&dlock::Client) -> Op<T>,
    convert: impl FnOnce(&Port, T) -> V + Send + 'static,
) -> Result<Unknown<'static>> {
    let port = port(env)?;
    let op = port.clients.borrow().get(client).map(|client| begin(&client.client));
    port.settle(op, convert)
}

/// Does this with the lock on a key. The one without terms is kept for the next time.
fn locking<T: Send + 'static>(
    port: &Port,
    client: u32,
    key: &str,
    terms: Option<Terms>,
    act: impl FnOnce(&Lock) -> Op<T>,
) -> dlock::Result<Op<T>> {
    let clients = port.clients.borrow();
    let client = clients.get(client)?;
    if let Some(terms) = terms {
        return Ok(act(&terms.apply(client.client.lock(key))?));
    }
    let mut last = client.last.borrow_mut();
    let lock = last.take().filter(|lock| lock.key() == key).unwrap_or_else(|| client.client.lock(key));
    Ok(act(last.insert(lock)))
}

fn granted(port: &Port, lease: Lease) -> u32 {
    port.leases.borrow_mut().insert(lease)
}

#[napi(catch_unwind)]
pub fn acquire(env: Env, client: u32, name: String, terms: Option<Terms>) -> Result<Unknown<'static>> {
    let port = port(env)?;
    port.settle(locking(port, client, &name, terms, Lock::acquire), granted)
}

#[napi(catch_unwind)]
pub fn try_acquire(env: Env, client: u32, name: String, terms: Option<Terms>) -> Result<Unknown<'static>> {
    let port = port(env)?;
    let granted = |port: &Port, lease: Option<Lease>| lease.map(|lease| granted(port, lease));
    port.settle(locking(port, client, &name, terms, Lock::try_acquire), granted)
}

#[napi(catch_unwind)]
pub fn query(env: Env, client: u32) -> Result<Snapshot> {
    with(env, client, |client| {
        let all = client.query()?.into_iter().map(|(name, held)| Entry { name, held }).collect();
        Ok(Snapshot { client_id: client.identity()?, all })
    })
}

#[napi(catch_unwind)]
pub fn holders(env: Env, client: u32, name: String) -> Result<Unknown<'static>> {
    call(env, client, |client| client.holders(&name), |_, all| all.into_iter().map(Holder::from).collect::<Vec<_>>())
}

#[napi(catch_unwind)]
pub fn break_lock(env: Env, client: u32, name: String) -> Result<Unknown<'static>> {
    call(env, client, |client| client.break_lock(&name), |_, broken| broken)
}

#[napi(catch_unwind)]
pub fn ping(env: Env, client: u32) -> Result<Unknown<'static>> {
    call(env, client, |client| client.ping(), |_, ()| ())
}

#[napi(catch_unwind)]
pub fn close(env: Env, client: u32) -> Result<Unknown<'static>> {
    call(env, client, |client| client.close(CLOSE), |_, ()| ())
}

#[napi(catch_unwind)]
pub fn closed(env: Env, client: u32) -> Result<bool> {
    with(env, client, |client| Ok(client.is_closed()))
}

#[napi(catch_unwind)]
pub fn backend(env: Env, client: u32) -> Result<&'static str> {
    with(env, client, |client| Ok(client.backend()))
}

/// Without secrets.
#[napi(catch_unwind)]
pub fn url(env: Env, client: u32) -> Result<String> {
    with(env, client, |client| Ok(client.config().url()))
}

#[napi(catch_unwind)]
pub fn capability(env: Env, client: u32) -> Result<Capability> {
    with(env, client, |client| Ok(client.capability().into()))
}

/// The error of a lease that was released.
#[napi(catch_unwind)]
pub fn released(env: Env, client: u32, name: String) -> Result<Unknown<'static>> {
    let backend = with(env, client, |client| Ok(client.backend()))?;
    let error = dlock::Error::new(Kind::NotHeld, "the lease was released before");
    port(env)?.error(&error.with_key(name).with_service(backend))
}
