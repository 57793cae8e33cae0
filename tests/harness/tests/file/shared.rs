//! Several users in one directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use rustix::fs::{Gid, Uid};

use crate::common::{Other, folder};

const FIRST: u32 = 64_001;
const SECOND: u32 = 64_002;
const GROUP: u32 = 64_100;
/// Where the system says whether files of others in directories that all may write are protected.
const PROTECTED: &str = "/proc/sys/fs/protected_regular";

/// Only root can be several users: an ordinary one has no second one to share with.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("not root: there is no second user to be");
    }
    root
}

/// A process of this user, with this group beside its own.
fn user(dir: &Path, id: u32, group: u32) -> Other {
    Other::start(dir, |line| {
        let become_user = move || {
            use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            set_thread_groups(&[Gid::from_raw(group)])?;
            set_thread_res_gid(gid, gid, gid)?;
            Ok(set_thread_res_uid(uid, uid, uid)?)
        };
        // SAFETY: nothing but system calls in the child.
        #[allow(unsafe_code, reason = "there is no other way to give a child groups")]
        unsafe {
            line.pre_exec(become_user);
        }
        line.current_dir("/");
    })
}

/// One after the other, with a key that both have and one each; while one holds, the other doesn't.
fn share(dir: &Path, group: u32) {
    let (mut first, mut second) = (user(dir, FIRST, group), user(dir, SECOND, group));
    let mut last = 0;
    for _ in 0..2 {
        for other in [&mut first, &mut second] {
            let fence = other.pair("both");
            assert!(fence > last, "{fence} after {last}");
            last = fence;
        }
    }
    first.pair("first");
    second.pair("first");
    second.pair("second");
    first.pair("second");
}

#[test]
fn a_second_user_gets_into_a_directory_that_all_may_write() {
    if !is_root() {
        return;
    }
    let folder = folder();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let before = fs::read_to_string(PROTECTED).unwrap();
    for protected in ["1", "2"] {
        // What the system has is used where it can't be set.
        let set = before.trim() != protected && fs::write(PROTECTED, protected).is_ok();
        let dir = folder.path().join(protected);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o1777)).unwrap();
        let shared = std::panic::catch_unwind(|| share(&dir, GROUP));
        if set {
            fs::write(PROTECTED, before.trim()).unwrap();
        }
        shared.unwrap_or_else(|_| panic!("with protected_regular {protected}"));
    }
}

/// Without setgid, files get the group of the process that makes them.
#[test]
fn a_group_shares_a_directory_without_setgid() {
    if !is_root() {
        return;
    }
    let folder = folder();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let dir = folder.path().join("group");
    fs::create_dir(&dir).unwrap();
    chown(&dir, None, Some(GROUP)).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o770)).unwrap();
    share(&dir, GROUP);
    for name in [".fence", "both.lock"] {
        let file = fs::metadata(dir.join(name)).unwrap();
        assert_eq!((file.gid(), file.mode() & 0o777), (GROUP, 0o660), "{name}");
    }
}
