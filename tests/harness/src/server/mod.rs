//! The parts of the servers of tests: processes that end with their test, certificates, clocks and host names. The
//! servers themselves are in [`backends`](crate::backends).

mod certs;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod preload;
pub(crate) mod process;

pub use self::certs::Certs;
#[cfg(target_os = "linux")]
pub use self::clock::Clock;
#[cfg(target_os = "linux")]
pub use self::names::Name;
