//! What JavaScript asks of a lease.

use dlock::{Ended, Lease, Op, State};
use napi::Env;
use napi::bindgen_prelude::{BigInt, Result, ToNapiValue, Unknown};
use napi_derive::napi;

use crate::bridge::{Port, port};
use crate::options::{in_millis, millis};

/// What may still be asked of a lease that is over.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Over {
    /// The error that tells of its loss.
    pub loss: Option<Unknown<'static>>,
    pub token: String,
    pub ttl: f64,
    pub fence: Option<BigInt>,
}

/// Forgets the lease; its object keeps this.
fn over(port: &Port, lease: u32, lost: bool) -> Option<Over> {
    let lease = port.leases.borrow_mut().remove(lease)?;
    Some(Over {
        loss: if lost { port.error(&lease.loss()).ok() } else { None },
        token: lease.token(),
        ttl: in_millis(lease.ttl()),
        fence: lease.fence().map(BigInt::from),
    })
}

fn with<T>(env: Env, lease: u32, act: impl FnOnce(&Lease) -> dlock::Result<T>) -> Result<T> {
    let port = port(env)?;
    let done = port.leases.borrow().get(lease).and_then(act);
    port.told(done)
}

fn call<T: Send + 'static, V: ToNapiValue>(
    env: Env,
    lease: u32,
    begin: impl FnOnce(&Lease) -> dlock::Result<Op<T>>,
    convert: impl FnOnce(&Port, T) -> V + Send + 'static,
) -> Result<Unknown<'static>> {
    let port = port(env)?;
    let op = port.leases.borrow().get(lease).and_then(begin);
    port.settle(op, convert)
}

/// Gives it back, and then forgets it. Not when that fails: then `free` does.
#[napi(catch_unwind)]
pub fn release(env: Env, lease: u32) -> Result<Unknown<'static>> {
    call(env, lease, |lease| Ok(lease.release()), move |port, ended| over(port, lease, ended == Ended::Lost))
}

#[napi(catch_unwind)]
pub fn renew(env: Env, lease: u32, ttl: Option<f64>) -> Result<Unknown<'static>> {
    let ttl = |lease: &Lease| Ok(lease.renew(ttl.map(|ttl| millis("ttl", ttl)).transpose()?));
    call(env, lease, ttl, |_, ()| ())
}

#[napi(catch_unwind)]
pub fn check(env: Env, lease: u32) -> Result<()> {
    with(env, lease, Lease::check)
}

#[napi(catch_unwind)]
pub fn valid_for(env: Env, lease: u32) -> Result<f64> {
    with(env, lease, |lease| Ok(in_millis(lease.valid_for())))
}

#[napi(catch_unwind)]
pub fn fence(env: Env, lease: u32) -> Result<Option<BigInt>> {
    with(env, lease, |lease| Ok(lease.fence().map(BigInt::from)))
}

#[napi(catch_unwind)]
pub fn token(env: Env, lease: u32) -> Result<String> {
    with(env, lease, |lease| Ok(lease.token()))
}

#[napi(catch_unwind)]
pub fn ttl(env: Env, lease: u32) -> Result<f64> {
    with(env, lease, |lease| Ok(in_millis(lease.ttl())))
}

/// The error that tells of its loss.
#[napi(catch_unwind)]
pub fn loss(env: Env, lease: u32) -> Result<Unknown<'static>> {
    let loss = with(env, lease, |lease| Ok(lease.loss()))?;
    port(env)?.error(&loss)
}

/// Has its loss told, with the number of the watch.
#[napi(catch_unwind)]
pub fn watch(env: Env, lease: u32, watch: f64) -> Result<()> {
    let port = port(env)?;
    port.told(port.watch(lease, watch))
}

/// Gives it back in the background; its key if it was held.
#[napi(catch_unwind)]
pub fn abandon(env: Env, lease: u32) -> Result<Option<String>> {
    let lease = port(env)?.leases.borrow_mut().remove(lease);
    Ok(lease.filter(Lease::is_held).map(|lease| lease.key().to_owned()))
}

/// Forgets it. What is still held is given back in the background.
#[napi(catch_unwind)]
pub fn free(env: Env, lease: u32) -> Result<Option<Over>> {
    let port = port(env)?;
    let lost = port.leases.borrow().get(lease).is_ok_and(|lease| lease.state() == State::Lost);
    Ok(over(port, lease, lost))
}
