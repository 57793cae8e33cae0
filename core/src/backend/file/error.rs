//! The meaning of the system's errors, and the remedy for each.

use rustix::io::Errno;

use crate::error::Error;

/// Returns the error for a failed call on a path.
pub(super) fn of(errno: Errno, what: &str, path: &str) -> Error {
    let (temporary, remedy) = match errno {
        Errno::NOSPC | Errno::DQUOT => {
            (true, "the file system is full: free some space, or name another directory by DLOCK_FILE_DIR")
        }
        Errno::ACCESS | Errno::PERM => (false, "this user may not: name another directory by DLOCK_FILE_DIR"),
        Errno::ROFS => (false, "the file system is read-only: name another directory by DLOCK_FILE_DIR"),
        Errno::MFILE | Errno::NFILE => (true, "too many open files: raise the limit (ulimit -n)"),
        Errno::NOLCK | Errno::NOMEM => (true, "the kernel has no memory for it: try again"),
        Errno::LOOP => (false, "it is a symbolic link, which could point anywhere: remove it"),
        Errno::NOTDIR => (false, "a part of the path is not a directory"),
        Errno::NOENT => (false, "its parent directory doesn't exist: create it"),
        Errno::NAMETOOLONG => (false, "the path is too long: name a shorter directory by DLOCK_FILE_DIR"),
        Errno::OPNOTSUPP | Errno::NOSYS => {
            (false, "this file system has no flock: name another directory by DLOCK_FILE_DIR")
        }
        _ => (false, "see the system's message"),
    };
    Error::refused(format!("can't {what} {path:?}: {remedy}"))
        .temporary(temporary)
        .with_source(std::io::Error::from(errno))
}
