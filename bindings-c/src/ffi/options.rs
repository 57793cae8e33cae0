//! The options of an acquire: the struct for C, and the core's lock that it describes.

use std::ffi::c_char;
use std::ptr;

use dlock::options::{OPTIONS, OptionKind, OptionValue};
use dlock::{Lock, Result};

use super::client::Client;
use super::{get, known_size, text, time};

/// The value that DLOCK_OPTIONS_INIT puts after the size. A struct without it was not made by DLOCK_OPTIONS_INIT.
pub const DLOCK_OPTIONS_MADE: u32 = 0x6c6f_636b;

/// The options of an acquire. Begin with DLOCK_OPTIONS_INIT and change the members that should differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    /// sizeof(dlock_options), set by DLOCK_OPTIONS_INIT.
    pub size: usize,
    /// DLOCK_OPTIONS_MADE, set by DLOCK_OPTIONS_INIT and by nothing else.
    pub made: u32,
    /// 1 (INIT) if the lease is renewed in the background, every ttl/3; 0 if not.
    pub auto_renew: i32,
    /// The time for which the backend keeps the lock with no renewal, at least 100 (etcd 2000, MySQL 1000). 0 (INIT):
    /// 30 s.
    pub ttl_ms: i64,
    /// The maximum time to wait for the lock. 0: try once. -1 (INIT): wait for ever.
    pub wait_ms: i64,
    /// The maximum time to hold the lock. After it the lease is lost and deleted at the backend. 0 (INIT): no limit.
    pub max_hold_ms: i64,
    /// The time between two tries, if retry_tries is set.
    pub retry_delay_ms: i64,
    /// The maximum number of tries, instead of a wait. 0 (INIT): wait as wait_ms allows.
    pub retry_tries: u32,
    /// The number of times in a row that the lock may be passed on inside this process.
    pub handoff: u32,
    /// The order across processes. 1: first come, first served, or DLOCK_UNSUPPORTED. 0: any. -1 (INIT): as the backend
    /// does.
    pub fair: i32,
    /// The owner token: the text that proves ownership. It is stored as given. NULL (INIT): unique to each acquisition.
    pub token: *const c_char,
    /// The free text that dlock_contenders shows. NULL (INIT): none.
    pub label: *const c_char,
}

/// The value of DLOCK_OPTIONS_INIT.
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

/// Reads the caller's options, which are not NULL. A member that an older header doesn't have is as in INIT.
unsafe fn read(given: *const Options) -> Result<Options> {
    let mut options = INIT;
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

/// The value of an option, as a member of the struct.
#[derive(Clone, Copy, PartialEq)]
enum Member {
    Time(i64),
    Flag(i32),
    Text(*const c_char),
    Count(u32),
    /// The members `retry_tries` and `retry_delay_ms`.
    Retry(u32, i64),
}

impl Options {
    /// Returns the member of each option, in the order of the core's table.
    const fn members(&self) -> [(&'static str, Member); OPTIONS.len()] {
        [
            ("ttl_ms", Member::Time(self.ttl_ms)),
            ("wait_ms", Member::Time(self.wait_ms)),
            ("retry", Member::Retry(self.retry_tries, self.retry_delay_ms)),
            ("auto_renew", Member::Flag(self.auto_renew)),
            ("max_hold_ms", Member::Time(self.max_hold_ms)),
            ("token", Member::Text(self.token)),
            ("label", Member::Text(self.label)),
            ("fair", Member::Flag(self.fair)),
            ("handoff", Member::Count(self.handoff)),
        ]
    }
}

const _: () = {
    let (members, mut at) = (INIT.members(), 0);
    while at < OPTIONS.len() {
        let (name, member) = members[at];
        assert!(begins(name, OPTIONS[at].name), "a member for every option, in the order of the table");
        assert!(matches!(
            (OPTIONS[at].kind, member),
            (OptionKind::Time, Member::Time(_))
                | (OptionKind::Flag, Member::Flag(_))
                | (OptionKind::Text, Member::Text(_))
                | (OptionKind::Count, Member::Count(_))
                | (OptionKind::Retry, Member::Retry(..))
        ));
        at += 1;
    }
};

/// Returns true if a member has the name of an option, and its unit behind.
const fn begins(member: &str, option: &str) -> bool {
    let (member, option, mut at) = (member.as_bytes(), option.as_bytes(), 0);
    while at < member.len() && at < option.len() && member[at] == option[at] {
        at += 1;
    }
    at == option.len() && (at == member.len() || member[at] == b'_')
}

impl Member {
    /// Returns the value for the core. Its text stays the caller's.
    unsafe fn value<'a>(self, name: &str) -> Result<OptionValue<'a>> {
        Ok(match self {
            Self::Time(ms) => OptionValue::Time(time(name, ms)?),
            Self::Flag(flag @ 0..=1) => OptionValue::Flag(flag == 1),
            Self::Flag(flag) => {
                return Err(dlock::Error::invalid(format!("{name} of {flag} is neither 0 nor 1")));
            }
            // SAFETY: as the caller promises.
            Self::Text(given) => OptionValue::Text(unsafe { text(name, given) }?),
            Self::Count(count) => OptionValue::Count(count),
            Self::Retry(tries, delay) => OptionValue::Retry((tries, time("retry_delay_ms", delay)?)),
        })
    }
}

/// Returns the lock that key and options describe. A member with the value of INIT leaves the option unchanged.
pub(crate) unsafe fn lock(client: *mut Client, key: *const c_char, options: *const Options) -> Result<Lock> {
    let client = get(client)?;
    // SAFETY: as the caller promises.
    let mut lock = client.0.lock(unsafe { text("key", key) }?);
    if options.is_null() {
        return Ok(lock);
    }
    // SAFETY: as the caller promises.
    let given = unsafe { read(options) }?.members();
    for ((option, (name, given)), (_, plain)) in OPTIONS.iter().zip(given).zip(const { INIT.members() }) {
        if given != plain {
            // SAFETY: as above, for the texts the options point to.
            lock = lock.set(option, unsafe { given.value(name) }?);
        }
    }
    Ok(lock)
}
