//! The library's threads: each has a name that begins with its own, and none takes a signal of the program's.

use std::collections::HashSet;
use std::sync::mpsc::channel;

use dlock::{Client, event};

use crate::{alone, ms, until};

/// Every thread of this process: its number, its name and which signals it has blocked.
fn all() -> Vec<(u32, String, u64)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = |path: std::path::PathBuf| std::fs::read_to_string(path.join("status")).ok();
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of it").trim().to_owned()
    };
    tasks
        .filter_map(|task| status(task.unwrap().path()))
        .map(|status| {
            let number = field(&status, "Pid:").parse().unwrap();
            (number, field(&status, "Name:"), u64::from_str_radix(&field(&status, "SigBlk:"), 16).unwrap())
        })
        .collect()
}

/// All that can be blocked, and are not sent to the thread that causes them. 32 and 33 are the C library's.
fn asynchronous() -> impl Iterator<Item = i32> {
    let others = [libc::SIGKILL, libc::SIGSTOP, 32, 33];
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    (1..=64).filter(move |signal| !others.contains(signal) && !faults.contains(signal))
}

#[test]
fn signals_are_the_programs() {
    if !alone("threads::signals_are_the_programs") {
        return;
    }
    // SAFETY: asks for a number.
    let me = unsafe { libc::gettid() }.cast_unsigned();
    let mine = || all().into_iter().find(|(number, ..)| *number == me).map(|(.., blocked)| blocked);
    let (before, known) = (mine(), all().into_iter().map(|(number, ..)| number).collect::<HashSet<_>>());
    event::subscribe(drop).unwrap();
    let (tell, told) = channel();
    let (hold, held) = channel::<()>();
    dlock::callbacks::pool(move || {
        tell.send(()).unwrap();
        let _ = held.recv();
    });
    told.recv_timeout(ms(10_000)).unwrap();
    // Its name is resolved, and its address refused.
    let _ = Client::connect("redis://localhost:1").unwrap().ping().wait();
    let ours = || all().into_iter().filter(|(number, ..)| !known.contains(number)).collect::<Vec<_>>();
    let names = ["dlock", "dlock-events", "dlock-pool", "dlock-resolve"];
    let found = |name: &&str| ours().iter().any(|(_, ours, _)| ours == name);
    until("all kinds of threads run", || names.iter().all(found));
    for (number, name, blocked) in ours() {
        assert!(names.contains(&&*name), "thread {number} is called {name}");
        let open: Vec<_> = asynchronous().filter(|signal| blocked >> (signal - 1) & 1 == 0).collect();
        assert!(open.is_empty(), "{name} takes the signals {open:?}");
        assert_eq!(blocked >> (libc::SIGSEGV - 1) & 1, 0, "{name} hides its own faults");
    }
    assert_eq!(mine(), before, "whoever has them started takes what it took before");
    drop(hold);
}
