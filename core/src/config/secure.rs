//! The check for rights that this process has and its caller doesn't have.
#![allow(unsafe_code)]

/// Returns true if it is setuid or setgid, or got capabilities from its file: then variables and directory are its
/// caller's, who must not decide by them what is written where only this process may write.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_privileged() -> bool {
    // SAFETY: reads what the kernel has given the process at its start; takes any number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// As on Linux.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
pub(crate) fn is_privileged() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    getuid() != geteuid() || getgid() != getegid()
}

#[cfg(not(unix))]
pub(crate) fn is_privileged() -> bool {
    false
}
