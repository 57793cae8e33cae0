//! How a lock is held: the struct of options, and the core's lock that it describes.

use std::ffi::c_char;
use std::ptr;

use dlock::options::{OPTIONS, OptionKind, OptionValue};
use dlock::{Lock, Result};

use super::client::Client;
use super::{get, known_size, text, time};

/// What DLOCK_OPTIONS_INIT puts behind the size: a struct without it was not made by that.
pub const DLOCK_OPTIONS_MADE: u32 = 0x6c6f_636b;

/// The options of an acquire. Begin with DLOCK_OPTIONS_INIT and change what shall differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    /// sizeof(dlock_options), set by DLOCK_OPTIONS_INIT.
    pub size: usize,
    /// DLOCK_OPTIONS_MADE, set by DLOCK_OPTIONS_INIT and by nothing else.
    pub made: u32,
    /// Whether the lease is renewed in the background, every ttl/3. 1, INIT, or 0.
    pub auto_renew: i32,
    /// How long the backend keeps the lock with no renewal, at least 100 (etcd 2000, MySQL 1000). 0: 30 s.
    pub ttl_ms: i64,
    /// How long to wait for the lock in all. 0: try once; -1, INIT: for ever.
    pub wait_ms: i64,
    /// After this long the lease is lost and deleted at the backend. 0: no limit.
    pub max_hold_ms: i64,
    /// With retry_tries: how far apart the tries are.
    pub retry_delay_ms: i64,
    /// Instead of waiting: at most so many tries. 0: wait as wait_ms says.
    pub retry_tries: u32,
    /// How many times in a row the lock may be passed on inside this process.
    pub handoff: u32,
    /// First come, first served across processes. -1, INIT: as the backend does; 1: yes, or DLOCK_UNSUPPORTED; 0.
    pub fair: i32,
    /// The text that proves ownership, stored as given. NULL: unique to each acquisition.
    pub token: *const c_char,
    /// Free text shown by dlock_contenders. NULL: none.
    pub label: *const c_char,
}

/// DLOCK_OPTIONS_INIT.
const INIT: Options = Options {
    size: size_of::<Options>(),
    made: DLOCK_OPTIONS_MADE,
    auto_renew: 1,
    ttl_ms: 0,
    wait_ms: -1,
    max_hold_ms: 0,
    retry_delay_ms: 0,
    retry_tries: 0,
    handoff: 0,
    fair: -1,
    token: ptr::null(),
    label: ptr::null(),
};

/// The sizes that the struct has had since the first release.
const SIZES: &[usize] = &[size_of::<Options>()];

/// The caller's options; what an older header doesn't have is as INIT says.
unsafe fn read(given: *const Options) -> Result<Options> {
    let mut options = INIT;
    if given.is_null() {
        return Ok(options);
    }
    // SAFETY: not NULL, so it points to at least the first two members, and to as many bytes as the first says.
    unsafe {
        if (&raw const (*given).made).read() != DLOCK_OPTIONS_MADE {
            return Err(dlock::Error::invalid(
                "the dlock_options were not made by DLOCK_OPTIONS_INIT but zeroed, or filled by designators alone: begin \
                 with dlock_options options = DLOCK_OPTIONS_INIT, and set what shall differ",
            ));
        }
        let size = (&raw const (*given).size).read();
        known_size("dlock_options", size, SIZES)?;
        ptr::copy_nonoverlapping(given.cast::<u8>(), (&raw mut options).cast(), size);
    }
    Ok(options)
}

/// The value of an option: a member of the struct, with its name there.
#[derive(Clone, Copy, PartialEq)]
enum Member {
    Time(&'static str, i64),
    Flag(&'static str, i32),
    Text(&'static str, *const c_char),
    Count(u32),
    /// `retry_tries` and `retry_delay_ms`.
    Retry(u32, i64),
}

impl Options {
    /// The member of each option, in the order of the core's table.
    const fn members(&self) -> [(&'static str, Member); OPTIONS.len()] {
        [
            ("ttl", Member::Time("ttl_ms", self.ttl_ms)),
            ("wait", Member::Time("wait_ms", self.wait_ms)),
            ("retry", Member::Retry(self.retry_tries, self.retry_delay_ms)),
            ("auto_renew", Member::Flag("auto_renew", self.auto_renew)),
            ("max_hold", Member::Time("max_hold_ms", self.max_hold_ms)),
            ("token", Member::Text("token", self.token)),
            ("label", Member::Text("label", self.label)),
            ("fair", Member::Flag("fair", self.fair)),
            ("handoff", Member::Count(self.handoff)),
        ]
    }
}

const _: () = {
    let (members, mut at) = (INIT.members(), 0);
    while at < OPTIONS.len() {
        let (option, member) = members[at];
        assert!(same(option, OPTIONS[at].name), "a member for every option, in the order of the table");
        assert!(matches!(
            (OPTIONS[at].kind, member),
            (OptionKind::Time, Member::Time(..))
                | (OptionKind::Flag, Member::Flag(..))
                | (OptionKind::Text, Member::Text(..))
                | (OptionKind::Count, Member::Count(_))
                | (OptionKind::Retry, Member::Retry(..))
        ));
        at += 1;
    }
};

const fn same(one: &str, two: &str) -> bool {
    let (one, two, mut at) = (one.as_bytes(), two.as_bytes(), 0);
    while at < one.len() && at < two.len() && one[at] == two[at] {
        at += 1;
    }
    at == one.len() && at == two.len()
}

impl Member {
    /// The value. The texts are the caller's.
    unsafe fn value<'a>(self) -> Result<OptionValue<'a>> {
        Ok(match self {
            Self::Time(name, ms) => OptionValue::Time(time(name, ms)?),
            Self::Flag(_, flag @ 0..=1) => OptionValue::Flag(flag == 1),
            Self::Flag(name, flag) => {
                return Err(dlock::Error::invalid(format!("{name} of {flag} is neither 0 nor 1")));
            }
            // SAFETY: as the caller promises.
            Self::Text(name, given) => OptionValue::Text(unsafe { text(name, given) }?),
            Self::Count(count) => OptionValue::Count(count),
            Self::Retry(tries, delay) => OptionValue::Retry((tries, time("retry_delay_ms", delay)?)),
        })
    }
}

/// The lock that key and options describe. A member that is as INIT says leaves the option as it is.
pub(crate) unsafe fn lock(client: *mut Client, key: *const c_char, options: *const Options) -> Result<Lock> {
    let client = get(client)?;
    // SAFETY: as the caller promises.
    let (key, given) = unsafe { (text("key", key)?, read(options)?) };
    let mut lock = client.0.lock(key);
    for ((option, (_, given)), (_, plain)) in OPTIONS.iter().zip(given.members()).zip(const { INIT.members() }) {
        if given != plain {
            // SAFETY: as above, for the texts the options point to.
            lock = lock.set(option, unsafe { given.value() }?);
        }
    }
    Ok(lock)
}
