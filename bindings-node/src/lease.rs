//! The calls of a lease, for JavaScript.

use dlock::{Lease, Op, ReleaseOutcome, State};
use napi::bindgen_prelude::{BigInt, Result, ToNapiValue, Unknown};
use napi_derive::napi;

use crate::bridge::Caller;
use crate::options::{in_millis, millis};

/// The values of a lease that is over.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct EndedLease {
    /// The error of the loss, if the lease was lost.
    pub loss: Option<Unknown<'static>>,
    pub token: String,
    pub ttl: f64,
    pub fence: Option<BigInt>,
}

/// Forgets the lease. The lease's object keeps the result.
fn over(caller: &Caller, lease: i64, lost: bool) -> Option<EndedLease> {
    let lease = caller.half().leases.borrow_mut().remove(lease)?;
    Some(EndedLease {
        loss: if lost { caller.error(&lease.loss()).ok() } else { None },
        token: lease.token(),
        ttl: in_millis(lease.ttl()),
        fence: lease.fence().map(BigInt::from),
    })
}

fn with<T>(caller: &Caller, lease: i64, act: impl FnOnce(&Lease) -> dlock::Result<T>) -> Result<T> {
    let done = caller.half().leases.borrow().get(lease).and_then(act);
    caller.or_throw(done)
}

fn call<T: Send + 'static, V: ToNapiValue>(
    caller: &Caller,
    lease: i64,
    begin: impl FnOnce(&Lease) -> dlock::Result<Op<T>>,
    convert: impl FnOnce(&Caller, T) -> V + Send + 'static,
) -> Result<Unknown<'static>> {
    let op = caller.half().leases.borrow().get(lease).and_then(begin);
    caller.settle(op, convert)
}

/// Releases the lease, and then forgets it. If the release fails, `free` has to forget it.
#[napi(catch_unwind)]
pub fn release(caller: Caller, lease: i64) -> Result<Unknown<'static>> {
    call(
        &caller,
        lease,
        |lease| Ok(lease.release()),
        move |caller, ended| over(caller, lease, ended == ReleaseOutcome::Lost),
    )
}

#[napi(catch_unwind)]
pub fn renew(caller: Caller, lease: i64, ttl: Option<f64>) -> Result<Unknown<'static>> {
    let ttl = |lease: &Lease| Ok(lease.renew(ttl.map(|ttl| millis("ttl", ttl)).transpose()?));
    call(&caller, lease, ttl, |_, ()| ())
}

#[napi(catch_unwind)]
pub fn check(caller: Caller, lease: i64) -> Result<()> {
    with(&caller, lease, Lease::check)
}

#[napi(catch_unwind)]
pub fn valid_for(caller: Caller, lease: i64) -> Result<f64> {
    with(&caller, lease, |lease| Ok(in_millis(lease.valid_for())))
}

#[napi(catch_unwind)]
pub fn fence(caller: Caller, lease: i64) -> Result<Option<BigInt>> {
    with(&caller, lease, |lease| Ok(lease.fence().map(BigInt::from)))
}

#[napi(catch_unwind)]
pub fn token(caller: Caller, lease: i64) -> Result<String> {
    with(&caller, lease, |lease| Ok(lease.token()))
}

#[napi(catch_unwind)]
pub fn ttl(caller: Caller, lease: i64) -> Result<f64> {
    with(&caller, lease, |lease| Ok(in_millis(lease.ttl())))
}

/// Returns the error of the loss of the lease.
#[napi(catch_unwind)]
pub fn loss(caller: Caller, lease: i64) -> Result<Unknown<'static>> {
    let loss = with(&caller, lease, |lease| Ok(lease.loss()))?;
    caller.error(&loss)
}

/// Notifies JavaScript when the lease is lost.
#[napi(catch_unwind)]
pub fn watch(caller: Caller, lease: i64) -> Result<()> {
    caller.or_throw(caller.watch(lease))
}

/// Releases the lease in the background. Returns its key if it was held.
#[napi(catch_unwind)]
pub fn abandon(caller: Caller, lease: i64) -> Result<Option<String>> {
    let lease = caller.half().leases.borrow_mut().remove(lease);
    Ok(lease.filter(Lease::is_held).map(|lease| lease.key().to_owned()))
}

/// Forgets the lease. A lease that is still held is released in the background.
#[napi(catch_unwind)]
pub fn free(caller: Caller, lease: i64) -> Result<Option<EndedLease>> {
    let lost = caller.half().leases.borrow().get(lease).is_ok_and(|lease| lease.state() == State::Lost);
    Ok(over(&caller, lease, lost))
}
