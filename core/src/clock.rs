//! The only clock: time that goes on while the machine is suspended, so that a lease that ended in the meantime is not
//! believed after it wakes.

use std::ops::Sub;
use std::time::Duration;

/// A point in time, in nanoseconds of the boot-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Later than every other: what has no end.
    pub const NEVER: Self = Self(u64::MAX);
    /// Earlier than every other.
    pub const START: Self = Self(0);

    /// Now.
    pub fn now() -> Self {
        #[cfg(feature = "testing")]
        if let Some(virtual_now) = virtual_time::now() {
            return Self(virtual_now);
        }
        Self(boot_time())
    }

    /// As the machine's clock has it, also in a test that has a clock of its own: for what other processes see too.
    #[cfg(unix)]
    pub(crate) fn real() -> Self {
        Self(boot_time())
    }

    /// Returns what [`now`](Self::now) says, where this is what [`real`](Self::real) has just said.
    #[cfg(unix)]
    pub(crate) fn as_now(self) -> Self {
        #[cfg(feature = "testing")]
        if let Some(virtual_now) = virtual_time::now() {
            return Self(virtual_now);
        }
        self
    }

    /// The time left until then, from now; zero once it has passed.
    pub fn left(self) -> Duration {
        if self == Self::NEVER { Duration::MAX } else { self - Self::now() }
    }

    /// Returns true if it has come.
    pub fn passed(self) -> bool {
        self != Self::NEVER && Self::now() >= self
    }

    /// That much later; `NEVER` stays, and what overflows becomes, `NEVER`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// That much earlier; `NEVER` stays.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        if self == Self::NEVER {
            return self;
        }
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }

    /// As nanoseconds since an arbitrary start; the same for all processes of a host.
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// From nanoseconds since that start.
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
}

/// The time from the earlier to the later; zero the other way round.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn boot_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(target_vendor = "apple")]
#[allow(unsafe_code)]
fn boot_time() -> u64 {
    #[repr(C)]
    struct Timebase {
        numer: u32,
        denom: u32,
    }
    unsafe extern "C" {
        fn mach_continuous_time() -> u64;
        fn mach_timebase_info(info: *mut Timebase) -> i32;
    }
    let mut base = Timebase { numer: 1, denom: 1 };
    // SAFETY: both calls only read the clock; `base` is valid for the write.
    let ticks = unsafe {
        mach_timebase_info(&mut base);
        mach_continuous_time()
    };
    u64::try_from(u128::from(ticks) * u128::from(base.numer) / u128::from(base.denom.max(1))).unwrap_or(u64::MAX)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn boot_time() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Sleeps for a while. Timers are only wake-up hints: what is valid is decided by comparing `Instant`s.
pub async fn sleep(duration: Duration) {
    sleep_until(Instant::now().plus(duration)).await;
}

/// Sleeps until then; for ever with [`Instant::NEVER`].
pub async fn sleep_until(then: Instant) {
    // A timer of a day at the most: the runtime's timers have a limit, and the clock is looked at again anyway.
    const LONGEST: Duration = Duration::from_secs(86_400);
    loop {
        if then == Instant::NEVER {
            std::future::pending::<()>().await;
        }
        let left = then.left();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST)).await;
    }
}

#[cfg(feature = "testing")]
pub(crate) mod virtual_time {
    use std::cell::Cell;

    /// Virtual time starts well above zero, so that "before" can be said of it.
    const START: u64 = 1_000_000_000_000;

    thread_local! {
        static BASE: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
    }

    /// From here on this thread's clock is the paused clock of the runtime it runs in.
    pub(crate) fn begin() {
        BASE.set(Some(tokio::time::Instant::now()));
    }

    /// Back to real time.
    pub(crate) fn end() {
        BASE.set(None);
    }

    pub(super) fn now() -> Option<u64> {
        let base = BASE.get()?;
        let passed = tokio::time::Instant::now().saturating_duration_since(base);
        Some(START + u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX / 2))
    }
}
