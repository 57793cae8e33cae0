//! Lists: the contenders of a key, and the keys that this process holds or waits for. Also the call that breaks a lock.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use super::client::Client;
use super::error::{Error, Status};
use super::{Handled, Out, c_text, catch_panic, free, get, guard, insert, millis, text};
use crate::handle::{self, Table};

/// A contender: a holder of a key or a waiter for it. A value that the backend doesn't know is NULL, -1, or a fence of
/// 0.
#[repr(C)]
pub struct Contender {
    /// The key.
    pub key: *const c_char,
    /// The owner token.
    pub token: *const c_char,
    /// The owner's label: free text.
    pub label: *const c_char,
    /// The owner's host.
    pub host: *const c_char,
    /// The process id of the owner.
    pub pid: i64,
    /// The fencing token.
    pub fence: i64,
    /// The time for which the contender has held the lock, or has waited for it.
    pub age_ms: i64,
    /// The time for which the backend still keeps the lock with no renewal.
    pub ttl_ms: i64,
    /// 1 if the contender holds the lock, 0 if it waits.
    pub held: i32,
}

/// The result of dlock_contenders and dlock_query.
#[derive(Default)]
pub struct List {
    items: Vec<Contender>,
    /// The texts that the items point to.
    texts: Vec<CString>,
}

// SAFETY: the items point to texts of the same list, which stay as they are until it is dropped.
unsafe impl Send for List {}
// SAFETY: as above.
unsafe impl Sync for List {}

impl Handled for List {
    const NAME: &'static str = "list";

    fn table() -> &'static Table<Self> {
        static TABLE: Table<List> = Table::new(handle::Kind::List);
        &TABLE
    }
}

impl List {
    fn text(&mut self, text: Option<String>) -> *const c_char {
        let Some(text) = text.map(c_text) else { return ptr::null() };
        let pointer = text.as_ptr();
        self.texts.push(text);
        pointer
    }

    fn add(&mut self, key: &str, contender: dlock::ContenderInfo) {
        let time = |time: Option<Duration>| time.map_or(-1, millis);
        let item = Contender {
            key: self.text(Some(key.to_owned())),
            token: self.text(contender.token),
            label: self.text(contender.label),
            host: self.text(contender.host),
            pid: contender.pid.map_or(-1, i64::from),
            fence: contender.fence.map_or(0, u64::cast_signed),
            age_ms: time(contender.age),
            ttl_ms: time(contender.ttl),
            held: contender.held.into(),
        };
        self.items.push(item);
    }
}

unsafe fn listed(
    list: *mut *mut List,
    err: *mut *mut Error,
    fill: impl FnOnce(&mut List) -> dlock::Result<()>,
) -> Status {
    let make = || {
        let out = Out::needed("list", list)?;
        let mut all = List::default();
        fill(&mut all)?;
        out.put(insert(all));
        Ok(())
    };
    // SAFETY: as the caller promises.
    unsafe { guard(err, make) }
}

/// Lists the contenders of a key: the holder first, then those that wait.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_contenders(
    client: *mut Client,
    key: *const c_char,
    list: *mut *mut List,
    err: *mut *mut Error,
) -> Status {
    let fill = |list: &mut List| {
        // SAFETY: as this function's.
        let key = unsafe { text("key", key) }?;
        get(client)?.0.contenders(key).wait()?.into_iter().for_each(|contender| list.add(key, contender));
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { listed(list, err, fill) }
}

/// Lists the keys that this process holds or waits for through clients of this URL. Sets only `key` and `held` of each
/// item. Does no I/O.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_query(client: *mut Client, list: *mut *mut List, err: *mut *mut Error) -> Status {
    let fill = |list: &mut List| {
        for (key, held) in get(client)?.0.query()? {
            let mut contender = dlock::ContenderInfo::default();
            contender.held = held;
            list.add(&key, contender);
        }
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { listed(list, err, fill) }
}

/// Returns the number of items in the list. Returns 0 for a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_list_count(list: *mut List) -> usize {
    catch_panic(0, || get(list).map_or(0, |list| list.items.len()))
}

/// Returns one item of the list. The first index is 0. The item and its texts are valid until dlock_list_free. Returns
/// NULL if index is behind the end, and for a bad handle.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_list_at(list: *mut List, index: usize) -> *const Contender {
    let found = || get(list).ok()?.items.get(index).map(ptr::from_ref);
    catch_panic(ptr::null(), || found().unwrap_or(ptr::null()))
}

/// Frees a list. Does nothing for NULL and bad handles.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn dlock_list_free(list: *mut List) {
    free(list);
}

/// Takes the lock away from its holder. broken may be NULL. Otherwise broken receives 1 if the lock was held, and 0 if
/// not. A holder in this process learns of it at once, another one at its next exchange with the backend. Until then
/// only the fencing token protects the data.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlock_break_lock(
    client: *mut Client,
    key: *const c_char,
    broken: *mut i32,
    err: *mut *mut Error,
) -> Status {
    let take_away = || {
        // SAFETY: as this function's.
        let taken = get(client)?.0.break_lock(unsafe { text("key", key) }?).wait()?;
        if let Ok(out) = Out::needed("broken", broken) {
            out.put(taken.into());
        }
        Ok(())
    };
    // SAFETY: as this function's.
    unsafe { guard(err, take_away) }
}
