//! The copies of the JavaScript half in one environment. A cleared module cache and a test runner's module registry
//! load that half again, often in another realm. Each copy has its own objects, and gets errors of its own classes.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr::{null_mut, without_provenance_mut};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dlock::{Error, Kind, Lease, Op};
use napi::bindgen_prelude::{
    FnArgs, FromNapiValue, Function, JsObjectValue, JsValuesTupleIntoVec, Object, Result, ToNapiValue, Unknown,
};
use napi::{Env, JsValue, Status, check_status, sys};

use super::LoopPort;
use crate::handles::Client;
use crate::numbers::Numbers;

/// One copy of the JavaScript half, with the values that its objects stand for.
pub(crate) struct Half {
    env: Env,
    /// The functions `failure` and `lost` of the copy. The reference is weak, because otherwise no copy could ever be
    /// collected.
    hooks: sys::napi_ref,
    /// The number of times that the copy has asked to keep the loop alive.
    holds: Cell<u32>,
    pub(crate) clients: RefCell<Numbers<Client>>,
    pub(crate) leases: RefCell<Numbers<Lease>>,
}

/// Registers a copy of the JavaScript half. Returns a value that stands for the copy in its calls. When that value is
/// collected, no code can name the copy's leases any more, so they are released.
pub(crate) fn join(env: Env, hooks: &Object<'_>) -> Result<Unknown<'static>> {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let port = super::open(env)?;
    let (raw, mut weak, mut value) = (env.raw(), null_mut(), null_mut());
    // SAFETY: on the environment's thread.
    check_status!(unsafe { sys::napi_create_reference(raw, hooks.raw(), 0, &raw mut weak) })?;
    let half = Half { env, hooks: weak, holds: Cell::new(0), clients: RefCell::default(), leases: RefCell::default() };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (data, own) = (without_provenance_mut(number), Rc::into_raw(port.clone()).cast::<c_void>().cast_mut());
    // SAFETY: the number is never used as an address; `leave` takes the port's count back, once.
    check_status!(unsafe { sys::napi_create_external(raw, data, Some(leave), own, &raw mut value) })?;
    port.halves.borrow_mut().insert(number, Rc::new(half));
    // SAFETY: a value of this environment, made in this call.
    Ok(unsafe { Unknown::from_raw_unchecked(raw, value) })
}

unsafe extern "C" fn leave(_: sys::napi_env, number: *mut c_void, port: *mut c_void) {
    // SAFETY: the pointer is from `join`. This is the end of the value that stands for the copy.
    let port = unsafe { Rc::from_raw(port.cast::<LoopPort>().cast_const()) };
    let half = port.halves.borrow_mut().remove(&number.addr());
    if let Some(half) = half {
        port.let_go(half.holds.take());
    }
}

impl Half {
    /// Takes all values that the copy's objects stand for.
    pub(super) fn take(&self) -> (Numbers<Lease>, Numbers<Client>) {
        (self.leases.take(), self.clients.take())
    }

    /// Returns one of the copy's functions. Fails if the copy is gone.
    fn hook<A: JsValuesTupleIntoVec, R>(&self, name: &str) -> Result<Function<'static, A, R>>
    where
        Function<'static, A, R>: FromNapiValue + napi::bindgen_prelude::ValidateNapiValue,
    {
        let mut hooks = null_mut();
        // SAFETY: made in `join`, and deleted when this is dropped.
        check_status!(unsafe { sys::napi_get_reference_value(self.env.raw(), self.hooks, &raw mut hooks) })?;
        if hooks.is_null() {
            return Err(napi::Error::new(Status::Cancelled, "the copy of dlock-rs is gone"));
        }
        Object::from_raw(self.env.raw(), hooks).get_named_property(name)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        // SAFETY: made in `join`; on the environment's thread, before its last act.
        unsafe { sys::napi_delete_reference(self.env.raw(), self.hooks) };
    }
}

/// The copy of the JavaScript half that makes a call. It is the first argument of each function.
pub struct Caller {
    port: Rc<LoopPort>,
    number: usize,
    half: Rc<Half>,
}

impl FromNapiValue for Caller {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        let mut number = null_mut();
        // SAFETY: in a call of JavaScript's.
        check_status!(unsafe { sys::napi_get_value_external(env, value, &raw mut number) })?;
        let caller = super::port(Env::from_raw(env))?.and_then(|port| Self::of(port, number.addr()));
        caller.ok_or_else(|| {
            napi::Error::new(Status::InvalidArg, "join() comes first, and each call brings what it gave")
        })
    }
}

/// The other end of a promise.
struct Deferred(sys::napi_deferred);

// SAFETY: other threads only carry it; it is used on the environment's thread.
unsafe impl Send for Deferred {}

impl LoopPort {
    fn value(&self, value: impl ToNapiValue) -> Result<Unknown<'static>> {
        let raw = self.env.raw();
        // SAFETY: on the environment's thread, in a call or drain of ours.
        Ok(unsafe { Unknown::from_raw_unchecked(raw, ToNapiValue::to_napi_value(raw, value)?) })
    }

    fn conclude(&self, Deferred(deferred): Deferred, result: Result<Unknown<'_>>) {
        let raw = self.env.raw();
        match result {
            // SAFETY: used up here, on the environment's thread.
            Ok(value) => unsafe { sys::napi_resolve_deferred(raw, deferred, value.raw()) },
            // SAFETY: as above.
            Err(error) => unsafe {
                sys::napi_reject_deferred(raw, deferred, napi::JsError::from(error).into_value(raw))
            },
        };
    }
}

impl Caller {
    fn of(port: Rc<LoopPort>, number: usize) -> Option<Self> {
        let half = port.halves.borrow().get(&number)?.clone();
        Some(Self { port, number, half })
    }

    /// Returns the caller's copy.
    pub(crate) fn half(&self) -> &Half {
        &self.half
    }

    pub(crate) fn hold(&self) {
        self.half.holds.set(self.half.holds.get() + 1);
        self.port.hold();
    }

    pub(crate) fn let_go(&self) {
        if let Some(fewer) = self.half.holds.get().checked_sub(1) {
            self.half.holds.set(fewer);
            self.port.let_go(1);
        }
    }

    /// Returns the core's error as an error of JavaScript.
    pub(crate) fn error(&self, error: &Error) -> Result<Unknown<'static>> {
        type Arguments = FnArgs<(&'static str, String, bool, Option<String>, Option<String>)>;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (key, backend) = (owned(error.key()), owned(error.backend()));
        let arguments = (error.kind().name(), error.to_string(), error.is_temporary(), key, backend);
        self.half.hook::<Arguments, Unknown<'static>>("failure")?.call(arguments.into())
    }

    /// Returns the core's value. An error of the core becomes the error to throw.
    pub(crate) fn or_throw<T>(&self, result: dlock::Result<T>) -> Result<T> {
        result.map_err(|error| self.error(&error).map_or_else(|failed| failed, napi::Error::from))
    }

    /// Returns the result of a call that is settled. Otherwise returns a promise of the result, which keeps the loop
    /// alive. Then `last_call` is the number by which to cancel the call.
    pub(crate) fn settle<T: Send + 'static, V: ToNapiValue>(
        &self,
        op: dlock::Result<Op<T>>,
        convert: impl FnOnce(&Self, T) -> V + Send + 'static,
    ) -> Result<Unknown<'static>> {
        let mut op = self.or_throw(op)?;
        if let Some(result) = op.settled() {
            let value = self.or_throw(result)?;
            return self.port.value(convert(self, value));
        }
        let (mut deferred, mut promise) = (null_mut(), null_mut());
        // SAFETY: on the environment's thread, in a call of JavaScript's.
        check_status!(unsafe { sys::napi_create_promise(self.raw(), &raw mut deferred, &raw mut promise) })?;
        let deferred = Deferred(deferred);
        let outbox = self.port.outbox.clone();
        let ending = || Error::new(Kind::Cancelled, "the process is ending");
        let call = self.or_throw(outbox.begin(op.canceller()).ok_or_else(ending))?;
        self.port.hold();
        let number = self.number;
        op.on_done(move |result| {
            let settle = move |port: &Rc<LoopPort>| {
                port.let_go(1);
                // Without the copy no code has the promise. So the result is dropped, which releases a lease.
                let value = match Self::of(port.clone(), number) {
                    Some(caller) => caller.or_throw(result).and_then(|value| port.value(convert(&caller, value))),
                    None => port.value(()),
                };
                port.conclude(deferred, value);
            };
            outbox.finish(Some(call), Box::new(settle));
        });
        // SAFETY: a value of this environment, made in this call.
        Ok(unsafe { Unknown::from_raw_unchecked(self.raw(), promise) })
    }

    /// Returns the number of the call that was begun last.
    pub(crate) fn last_call(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "2^53 calls are never reached")]
        let last = self.port.outbox.begun() as f64;
        last
    }

    pub(crate) fn cancel(&self, call: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number we gave out")]
        self.port.outbox.cancel(call as u64);
    }

    /// Notifies the copy when this lease is lost.
    pub(crate) fn watch(&self, lease: i64) -> dlock::Result<()> {
        let (outbox, number) = (self.port.outbox.clone(), self.number);
        self.half.leases.borrow().get(lease)?.on_lost_here(move || {
            let tell = move |port: &Rc<LoopPort>| {
                // No caller can catch an exception of this function.
                let _ = Self::of(port.clone(), number)
                    .map(|caller| caller.half.hook::<i64, ()>("lost").and_then(|lost| lost.call(lease)));
            };
            outbox.post(Box::new(tell));
        });
        Ok(())
    }

    fn raw(&self) -> sys::napi_env {
        self.port.env.raw()
    }
}
