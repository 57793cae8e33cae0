//! The orderly end of a process that holds and waits.

use dlock_harness::ending::{ONCE, OWN, Other, THEIRS, as_the_other};

use crate::common::{LONG, client, left_over, lock, ms, queued, released, server, until_queued};

#[test]
fn the_other_process() {
    as_the_other();
}

fn leaves_nothing(how: &str) -> String {
    let server = server();
    let client = client(server.addr());
    let theirs = lock(&client, THEIRS, LONG).acquire().wait().unwrap();
    let other = Other::start("exit::the_other_process", &server.url());
    until_queued(&server, THEIRS, 1);
    let (took, said) = other.end(how);
    println!("a process with 2 leases and 8 waiters ended after {took:?}");
    assert_eq!(queued(&server, THEIRS), 0, "it has left the queue");
    assert_eq!(left_over(&server), [THEIRS]);
    for key in [OWN, ONCE] {
        released(&client.lock(key).try_acquire().wait().unwrap().expect("free"));
    }
    released(&theirs);
    said
}

#[test]
fn an_exit_leaves_nothing() {
    let said = leaves_nothing("exit");
    assert!(!said.contains("came back"), "nobody hears of it: {said}");
}

#[test]
fn a_shutdown_leaves_nothing_and_tells_everybody() {
    leaves_nothing("shutdown");
}

#[test]
fn an_exit_waits_no_longer_than_it_may() {
    let server = server();
    let client = client(server.addr());
    let theirs = lock(&client, THEIRS, LONG * 6).acquire().wait().unwrap();
    let other = Other::start("exit::the_other_process", &server.url());
    until_queued(&server, THEIRS, 1);
    server.pause();
    let (took, _) = other.end("exit");
    server.resume();
    println!("with a server that doesn't answer a process ended after {took:?}");
    assert!(took > ms(500) && took < LONG / 2, "{took:?}");
    released(&theirs);
}
