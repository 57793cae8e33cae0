//! How a running call meets the event loop: completions gather in a queue, one thread-safe function wakes the loop once,
//! and the loop's own thread settles the promises. Threads of the core never touch the environment.

#![allow(unsafe_code)]

mod outbox;

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::mpsc::channel;

use dlock::clock::Instant;
use dlock::{Error, Kind, Op};
use napi::bindgen_prelude::{FnArgs, FunctionRef, Result, ToNapiValue, Unknown};
use napi::{Env, JsValue, Status, check_status, sys};

use crate::client::Client;
use crate::slab::Slab;
use outbox::{END, Outbox};

pub(crate) use outbox::shutdown;

/// Makes an error of the JavaScript half's: kind, message, temporary, key, service.
pub(crate) type Fail =
    FunctionRef<FnArgs<(&'static str, String, bool, Option<String>, Option<String>)>, Unknown<'static>>;
/// Tells the JavaScript half of a loss: the lease's number, the watch's.
pub(crate) type Lost = FunctionRef<FnArgs<(u32, f64)>, ()>;

/// One environment: the main thread's, or a worker's. Only its own thread has it.
pub(crate) struct Port {
    env: Env,
    outbox: Arc<Outbox>,
    fail: Fail,
    lost: Lost,
    /// Reasons to keep the loop alive: calls under way, and what was asked for.
    holds: Cell<u32>,
    pub(crate) clients: RefCell<Slab<Client>>,
    pub(crate) leases: RefCell<Slab<dlock::Lease>>,
}

/// A promise's other end.
struct Deferred(sys::napi_deferred);

// SAFETY: other threads only carry it; it is used on the environment's thread.
unsafe impl Send for Deferred {}

/// Makes the environment's port.
pub(crate) fn open(env: Env, fail: Fail, lost: Lost) -> Result<()> {
    let outbox = Arc::new(Outbox::default());
    let port = Port {
        env,
        outbox: outbox.clone(),
        fail,
        lost,
        holds: Cell::new(0),
        clients: RefCell::default(),
        leases: RefCell::default(),
    };
    let (raw, port) = (env.raw(), Box::into_raw(Box::new(port)).cast::<c_void>());
    // SAFETY: `free` takes the box back, once, after the last JavaScript of the environment.
    check_status!(unsafe { sys::napi_set_instance_data(raw, port, Some(free), null_mut()) })?;
    let (name, mut wake) = (env.create_string("dlock")?, null_mut());
    let (nobody, nothing) = (null_mut(), null_mut());
    // SAFETY: the port outlives the function, which its outbox releases; in place of a JavaScript function is `drain`.
    check_status!(unsafe {
        let (name, drain) = (name.raw(), Some(drain as _));
        sys::napi_create_threadsafe_function(raw, nobody, nobody, name, 0, 1, nothing, None, port, drain, &raw mut wake)
    })?;
    outbox.open(wake);
    outbox.keep_alive(env, false);
    // After the function: hooks run in reverse, so this one runs while the function still exists.
    // SAFETY: the port is freed after the hooks.
    check_status!(unsafe { sys::napi_add_env_cleanup_hook(raw, Some(end), port) })
}

/// The port of the environment, which has one since it loaded the JavaScript half.
pub(crate) fn port<'a>(env: Env) -> Result<&'a Port> {
    let mut port = null_mut();
    // SAFETY: on the environment's thread.
    check_status!(unsafe { sys::napi_get_instance_data(env.raw(), &raw mut port) })?;
    // SAFETY: from `open`, the only one to set it, and not freed while JavaScript runs.
    unsafe { port.cast::<Port>().as_ref() }
        .ok_or_else(|| napi::Error::new(Status::GenericFailure, "join() comes first"))
}

unsafe extern "C" fn free(_: sys::napi_env, port: *mut c_void, _: *mut c_void) {
    // SAFETY: from `open`; the environment's last act.
    drop(unsafe { Box::from_raw(port.cast::<Port>()) });
}

/// The end of the environment, of a worker that ends or is terminated: gives back all it has. The process may end next,
/// so that is waited for.
unsafe extern "C" fn end(port: *mut c_void) {
    // SAFETY: from `open`, and not freed before the hooks have run.
    let port = unsafe { &*port.cast::<Port>() };
    let until = Instant::now().plus(END);
    let first = port.outbox.close();
    let (leases, clients) = (port.leases.take(), port.clients.take());
    let (tell, told) = channel::<()>();
    for lease in leases.into_values() {
        let tell = tell.clone();
        lease.release().on_done(move |_| drop(tell));
    }
    drop((tell, clients));
    if first {
        // Over when the last release has let go of its end.
        let _ = told.recv_timeout(until.left());
        port.outbox.quiet(until);
    }
}

/// The loop's turn: does all that is in the queue.
unsafe extern "C" fn drain(env: sys::napi_env, _: sys::napi_value, port: *mut c_void, _: *mut c_void) {
    if env.is_null() {
        return;
    }
    // SAFETY: from `open`; with an environment there is its port.
    let port = unsafe { &*port.cast::<Port>() };
    for one in port.outbox.take() {
        // Values made for one of many don't pile up; a panic is nobody's here.
        let done = AssertUnwindSafe(|| {
            port.env.run_in_scope(|| {
                one(port);
                Ok(())
            })
        });
        let _ = catch_unwind(done);
    }
}

impl Port {
    /// Keeps the loop alive, until let go as often.
    pub(crate) fn hold(&self) {
        self.holds.set(self.holds.get() + 1);
        if self.holds.get() == 1 {
            self.outbox.keep_alive(self.env, true);
        }
    }

    pub(crate) fn let_go(&self) {
        self.holds.set(self.holds.get().saturating_sub(1));
        if self.holds.get() == 0 {
            self.outbox.keep_alive(self.env, false);
        }
    }

    /// The core's error as JavaScript's.
    pub(crate) fn error(&self, error: &Error) -> Result<Unknown<'static>> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (key, service) = (owned(error.key()), owned(error.service()));
        let arguments = (error.kind().name(), error.to_string(), error.is_temporary(), key, service);
        self.fail.borrow_back(&self.env)?.call(arguments.into())
    }

    /// What the core says; its error as the one to be thrown.
    pub(crate) fn told<T>(&self, result: dlock::Result<T>) -> Result<T> {
        result.map_err(|error| self.error(&error).map_or_else(|failed| failed, napi::Error::from))
    }

    /// The result of a call that is settled; else a promise of it, which keeps the loop alive. `last_call` is then the
    /// number to cancel it by.
    pub(crate) fn settle<T: Send + 'static, V: ToNapiValue>(
        &self,
        op: dlock::Result<Op<T>>,
        convert: impl FnOnce(&Self, T) -> V + Send + 'static,
    ) -> Result<Unknown<'static>> {
        let mut op = self.told(op)?;
        if let Some(result) = op.settled() {
            let value = self.told(result)?;
            return self.value(convert(self, value));
        }
        let (mut deferred, mut promise) = (null_mut(), null_mut());
        // SAFETY: on the environment's thread, in a call of JavaScript's.
        check_status!(unsafe { sys::napi_create_promise(self.env.raw(), &raw mut deferred, &raw mut promise) })?;
        let deferred = Deferred(deferred);
        let outbox = self.outbox.clone();
        let ending = || Error::new(Kind::Cancelled, "the process is ending");
        let call = self.told(outbox.begin(op.canceller()).ok_or_else(ending))?;
        self.hold();
        op.on_done(move |result| {
            let settle = move |port: &Self| {
                port.let_go();
                port.conclude(deferred, port.told(result).and_then(|value| port.value(convert(port, value))));
            };
            outbox.finish(Some(call), Box::new(settle));
        });
        // SAFETY: a value of this environment, made in this call.
        Ok(unsafe { Unknown::from_raw_unchecked(self.env.raw(), promise) })
    }

    /// The number of the call that was begun last.
    pub(crate) fn last_call(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "2^53 calls are never reached")]
        let last = self.outbox.begun() as f64;
        last
    }

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

    /// Has the loss of this lease told to the JavaScript half, with the number of the watch.
    pub(crate) fn watch(&self, lease: u32, watch: f64) -> dlock::Result<()> {
        let outbox = self.outbox.clone();
        self.leases.borrow().get(lease)?.on_lost(move || {
            let tell = move |port: &Self| {
                // Whatever it throws is nobody's.
                let _ = port.lost.borrow_back(&port.env).and_then(|lost| lost.call((lease, watch).into()));
            };
            outbox.post(Box::new(tell));
        });
        Ok(())
    }

    pub(crate) fn cancel(&self, call: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number we gave out")]
        self.outbox.cancel(call as u64);
    }
}
