//! What a fork does: the child has nothing of its parent's, and takes nothing away from it.
//!
//! Each test forks in a process of its own, which has one thread of the test's and the threads the library made.

#![cfg(unix)]
#![allow(unsafe_code, reason = "fork has no safe form")]

use std::process::Command;
use std::time::Duration;

use dlock::{Client, Kind, State};
use tempfile::TempDir;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const INSIDE: &str = "DLOCK_TEST_FORK";

/// Runs a test again in a process of its own; true there.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(run.status.success(), "{}", told.join("\n"));
    false
}

/// Does this in a child of fork; it has to return true there, within 20 seconds.
fn child(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child runs nothing but the test's own code and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: a child that hangs is ended by its alarm.
        unsafe { libc::alarm(20) };
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
        // SAFETY: ends this process, without its parent's destructors.
        unsafe { libc::_exit(if fine { 0 } else { 1 }) };
    }
    pid
}

fn succeeded(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is valid for the write, `pid` is a child of this process.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the child failed (a status of 14 is its alarm)");
}

fn both(test: impl Fn(&Client, &Client)) {
    let dir = TempDir::new().unwrap();
    let file = format!("file://{}", dir.path().display());
    let client = Client::connect(&file).unwrap();
    let other = Client::connect(&format!("{file}?prefix=other-")).unwrap();
    test(&client, &other);
}

#[test]
fn the_childs_try_is_busy() {
    if !inside("the_childs_try_is_busy") {
        return;
    }
    both(|client, _| {
        let lease = client.lock("k").acquire().wait().unwrap();
        let lock = client.lock("k");
        succeeded(child(|| {
            lock.try_acquire().wait().unwrap().is_none()
                && client.lock("k").wait(ms(50)).acquire().wait().unwrap_err().kind() == Kind::Timeout
                && client.lock("other").try_acquire().wait().unwrap().is_some()
                && client.query().unwrap().is_empty()
        }));
        assert!(lease.is_held());
    });
}

#[test]
fn inherited_leases_are_nothing() {
    if !inside("inherited_leases_are_nothing") {
        return;
    }
    both(|client, other| {
        let (kept, dropped) =
            (client.lock("kept").acquire().wait().unwrap(), client.lock("dropped").acquire().wait().unwrap());
        let memory = Client::connect("memory://fork").unwrap();
        let inner = memory.lock("k").acquire().wait().unwrap();
        let mut dropped = Some(dropped);
        let pid = child(|| {
            let error = kept.check().unwrap_err();
            drop(dropped.take());
            !kept.is_held()
                && kept.valid_for().is_zero()
                && error.kind() == Kind::NotHeld
                && kept.release().wait().unwrap_err().kind() == Kind::NotHeld
                && kept.renew(None).wait().is_err()
                // Another process's table is its own.
                && !inner.is_held()
                && memory.lock("k").try_acquire().wait().unwrap().is_some()
                && client.lock("kept").try_acquire().wait().unwrap().is_none()
                && client.lock("dropped").try_acquire().wait().unwrap().is_none()
                && other.lock("mine").acquire().wait().unwrap().is_held()
        });
        succeeded(pid);
        let dropped = dropped.unwrap();
        assert!(kept.is_held() && dropped.is_held() && inner.is_held());
        assert_eq!(kept.state(), State::Held);
        kept.release().wait().unwrap();
        assert!(client.lock("kept").try_acquire().wait().unwrap().is_some());
    });
}

/// With the runtime's thread running, waiters in the queue and a watchdog.
#[test]
fn forks_in_the_middle_of_things() {
    if !inside("forks_in_the_middle_of_things") {
        return;
    }
    both(|client, _| {
        let lease = client.lock("k").acquire().wait().unwrap();
        let ends = client.lock("ends").ttl(ms(200)).renew(false).acquire().wait().unwrap();
        let waiter = client.lock("k").acquire();
        let (tell, told) = std::sync::mpsc::channel();
        let _waiting = waiter.on_done(move |result| tell.send(result).unwrap());
        std::thread::sleep(ms(20));
        for _ in 0..20 {
            let pid = child(|| {
                let mine = client.lock("mine").acquire().wait().unwrap();
                let busy = client.lock("k").wait(ms(20)).acquire().wait().is_err();
                // A lock that ends has a watchdog, on a runtime of the child's.
                let short = client.lock("short").ttl(ms(100)).renew(false).acquire().wait().unwrap();
                let lost = short.lost().wait().unwrap();
                mine.release().wait().is_ok() && busy && lost
            });
            succeeded(pid);
        }
        assert!(lease.is_held());
        assert!(ends.lost().wait().unwrap());
        lease.release().wait().unwrap();
        assert!(told.recv_timeout(ms(5_000)).unwrap().unwrap().is_held());
    });
}

/// An inherited descriptor would keep a dead parent's lock: the child that lives on must not.
#[test]
fn a_dead_parents_lock_is_free() {
    if !inside("a_dead_parents_lock_is_free") {
        return;
    }
    both(|client, _| {
        let (mut alive, mut leave) = ([0; 2], [0; 2]);
        // SAFETY: both arrays have room for two descriptors.
        unsafe {
            assert_eq!(libc::pipe(alive.as_mut_ptr()), 0);
            assert_eq!(libc::pipe(leave.as_mut_ptr()), 0);
        }
        let parent = child(|| {
            let lease = client.lock("k").acquire().wait().unwrap();
            let _grandchild = child(|| {
                // SAFETY: reads and writes a byte of the stack; the descriptors are open.
                unsafe {
                    let mut byte = 0_u8;
                    libc::close(leave[1]);
                    libc::write(alive[1], (&raw const byte).cast(), 1);
                    libc::read(leave[0], (&raw mut byte).cast(), 1);
                }
                true
            });
            // Dies with its lock, as by kill -9: no destructor runs.
            lease.is_held()
        });
        succeeded(parent);
        // SAFETY: as above.
        unsafe {
            let mut byte = 0_u8;
            assert_eq!(libc::read(alive[0], (&raw mut byte).cast(), 1), 1, "the grandchild lives");
        }
        assert!(client.lock("k").wait(ms(1_000)).acquire().wait().is_ok());
        // SAFETY: lets the grandchild go.
        unsafe { libc::close(leave[1]) };
    });
}
