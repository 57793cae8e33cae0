//! The orderly end of a process that holds and waits.

use dlock_harness::backends::etcd::Etcd;
use dlock_harness::ending::{ONCE, OWN, Other, THEIRS, as_the_other};

use crate::common::{acquired, client, contenders, released, server, until_contenders};

#[test]
fn the_other_process() {
    as_the_other();
}

/// The leases at the server.
fn leases(server: &Etcd) -> Vec<String> {
    server.ctl(&["lease", "list"]).lines().skip(1).map(str::to_owned).collect()
}

fn leaves_nothing(how: &str) {
    let server = server();
    let client = client(server.addr());
    let theirs = acquired(&client, THEIRS);
    let before = leases(&server);
    let other = Other::start("exit::the_other_process", &server.url());
    until_contenders(&server, THEIRS, 2);
    let (took, said) = other.end(how);
    println!("a process with 2 leases and 8 waiters ended after {took:?}");
    assert_eq!(contenders(&server, THEIRS).len(), 1, "it has left the queue: {said}");
    assert_eq!(contenders(&server, OWN).len() + contenders(&server, ONCE).len(), 0, "{said}");
    assert_eq!(leases(&server), before, "its sessions are closed");
    for key in [OWN, ONCE] {
        released(&client.lock(key).try_acquire().wait().unwrap().expect("free"));
    }
    released(&theirs);
}

#[test]
fn an_exit_leaves_nothing() {
    leaves_nothing("exit");
}

#[test]
fn a_shutdown_leaves_nothing_and_tells_everybody() {
    leaves_nothing("shutdown");
}
