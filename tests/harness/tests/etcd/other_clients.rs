//! Processes of ours and programs that use etcd's own mutex enter one at a time, and all have to wait for one another.

use std::path::Path;
use std::process::Command;

use dlock_harness::backends::etcd::Etcd;
use dlock_harness::other_clients::{ALONE, Contest, done, entry, go_mutex};

use crate::common::server;

/// The process of ours.
#[test]
fn one_of_ours() {
    dlock_harness::other_clients::one_of_ours();
}

/// Runs one etcdctl an entry.
fn etcdctl(server: &Etcd, room: &Path, name: &str, entries: usize) {
    for _ in 0..entries {
        done(server.ctl_line(&["lock", "k"]).args(entry(name)).arg(ALONE).current_dir(room));
    }
}

#[test]
fn ours_and_etcdctl_enter_one_at_a_time() {
    let server = server();
    let contest = Contest::new(&server);
    contest.run(|room, name| etcdctl(&server, room, name, contest.entries));
}

#[test]
fn ours_and_the_mutex_of_go_enter_one_at_a_time() {
    let (server, program) = (server(), go_mutex(env!("CARGO_TARGET_TMPDIR")));
    let contest = Contest::new(&server);
    contest.run(|room, name| {
        let mut line = Command::new(&program);
        line.args(["etcd", &server.addr().to_string(), "k", &contest.entries.to_string()]);
        done(line.args(entry(name)).arg(ALONE).current_dir(room));
    });
}

#[test]
fn one_that_enters_without_the_lock_is_noticed() {
    let server = server();
    let contest = Contest { entries: 40, rogue: 2, ..Contest::new(&server) };
    let outcome = contest.run(|room, name| etcdctl(&server, room, name, 40));
    assert!(outcome.overlaps() > 0 && outcome.judge().is_err(), "{outcome:?}");
}
