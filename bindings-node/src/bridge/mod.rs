//! The bridge from running calls to the event loop. Completions gather in a queue, one thread-safe function wakes the
//! loop once, and the loop's own thread settles the promises. Threads of the core never touch the environment.

#![allow(unsafe_code)]

mod half;
mod outbox;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;

use dlock::clock::Instant;
use dlock::limits;
use napi::bindgen_prelude::Result;
use napi::{Env, JsValue, check_status, sys};

use half::Half;
pub(crate) use half::{Caller, join};
use outbox::Outbox;

pub(crate) use outbox::shutdown;

/// One environment: that of the main thread or of a worker. Only its own thread uses it.
struct LoopPort {
    env: Env,
    outbox: Arc<Outbox>,
    /// The number of reasons to keep the loop alive: running calls, and requests of the JavaScript half.
    holds: Cell<u32>,
    /// The copies of the JavaScript half that are loaded, by number.
    halves: RefCell<BTreeMap<usize, Rc<Half>>>,
}

/// Returns the port of the environment. Makes it for the first copy of the JavaScript half.
fn open(env: Env) -> Result<Rc<LoopPort>> {
    if let Some(port) = port(env)? {
        return Ok(port);
    }
    let outbox = Arc::new(Outbox::default());
    let port =
        Rc::new(LoopPort { env, outbox: outbox.clone(), holds: Cell::new(0), halves: RefCell::new(BTreeMap::new()) });
    let (raw, own) = (env.raw(), Rc::into_raw(port.clone()).cast::<c_void>().cast_mut());
    // SAFETY: `free` takes the count back, once, after the last JavaScript of the environment.
    check_status!(unsafe { sys::napi_set_instance_data(raw, own, Some(free), null_mut()) })?;
    let (name, mut wake) = (env.create_string("dlock")?, null_mut());
    let (nobody, nothing) = (null_mut(), null_mut());
    // SAFETY: the port outlives the function, which its outbox releases; in place of a JavaScript function is `drain`.
    check_status!(unsafe {
        let (name, drain) = (name.raw(), Some(drain as _));
        sys::napi_create_threadsafe_function(raw, nobody, nobody, name, 0, 1, nothing, None, own, drain, &raw mut wake)
    })?;
    outbox.open(wake);
    outbox.keep_alive(env, false);
    // After the function: hooks run in reverse, so this one runs while the function still exists.
    // SAFETY: the port is freed after the hooks.
    check_status!(unsafe { sys::napi_add_env_cleanup_hook(raw, Some(end), own) })?;
    Ok(port)
}

/// Returns the port of the environment, or `None` if no copy of the JavaScript half was loaded yet.
fn port(env: Env) -> Result<Option<Rc<LoopPort>>> {
    let mut port = null_mut();
    // SAFETY: on the environment's thread.
    check_status!(unsafe { sys::napi_get_instance_data(env.raw(), &raw mut port) })?;
    // SAFETY: from `open`, the only one to set it, and not freed while JavaScript runs.
    Ok((!port.is_null()).then(|| unsafe { shared(port) }))
}

/// Returns one more reference to a port that `open` made and `free` hasn't freed.
unsafe fn shared(port: *mut c_void) -> Rc<LoopPort> {
    let port = port.cast::<LoopPort>().cast_const();
    // SAFETY: as the caller promises.
    unsafe {
        Rc::increment_strong_count(port);
        Rc::from_raw(port)
    }
}

unsafe extern "C" fn free(_: sys::napi_env, port: *mut c_void, _: *mut c_void) {
    // SAFETY: from `open`; the environment's last act.
    drop(unsafe { Rc::from_raw(port.cast::<LoopPort>().cast_const()) });
}

/// Releases all that the environment holds, when the process or a worker ends or a worker is terminated. Waits for
/// that, because the process may end next.
unsafe extern "C" fn end(port: *mut c_void) {
    // SAFETY: from `open`, and not freed before the hooks have run.
    let port = unsafe { &*port.cast::<LoopPort>() };
    let until = Instant::now().plus(limits::EXIT);
    let first = port.outbox.close();
    let halves = port.halves.take();
    let (tell, told) = channel::<()>();
    let (leases, clients): (Vec<_>, Vec<_>) = halves.values().map(|half| half.take()).unzip();
    for lease in leases.into_iter().flatten() {
        let tell = tell.clone();
        lease.release().on_done(move |_| drop(tell));
    }
    drop((tell, clients));
    if first {
        // The channel closes when the last release has dropped its sender.
        let _ = told.recv_timeout(until.left());
        port.outbox.quiet(until);
    }
}

/// Does all work in the queue, on the loop's thread.
unsafe extern "C" fn drain(env: sys::napi_env, _: sys::napi_value, port: *mut c_void, _: *mut c_void) {
    if env.is_null() {
        return;
    }
    // SAFETY: from `open`; with an environment there is its port.
    let port = unsafe { shared(port) };
    for one in port.outbox.take() {
        // The scope frees the values of one piece of work before the next one. A panic has no caller to go to.
        let done = AssertUnwindSafe(|| {
            port.env.run_in_scope(|| {
                one(&port);
                Ok(())
            })
        });
        let _ = catch_unwind(done);
    }
}

impl LoopPort {
    /// Keeps the loop alive until `let_go` was called as often.
    fn hold(&self) {
        self.holds.set(self.holds.get() + 1);
        if self.holds.get() == 1 {
            self.outbox.keep_alive(self.env, true);
        }
    }

    fn let_go(&self, times: u32) {
        if times == 0 {
            return;
        }
        self.holds.set(self.holds.get().saturating_sub(times));
        if self.holds.get() == 0 {
            self.outbox.keep_alive(self.env, false);
        }
    }
}
