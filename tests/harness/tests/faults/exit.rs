//! The orderly end of a process that holds and waits.

use dlock_harness::ending::{ONCE, OWN, Other, THEIRS, as_the_other};

use crate::common::{LONG, On, acquired, lock, ms, released, until_contenders};

scenarios! {
    an_exit_leaves_nothing;
    a_shutdown_leaves_nothing_and_tells_everybody;
    an_exit_waits_no_longer_than_it_may;
}

#[test]
fn the_other_process() {
    as_the_other();
}

fn leaves_nothing(on: On, how: &str) -> String {
    let server = on.server();
    let client = on.client(server.addr());
    let theirs = acquired(&client, THEIRS);
    let (keys, sessions) = (server.left_over(), server.sessions());
    let other = Other::start("exit::the_other_process", &server.url());
    until_contenders(&*server, THEIRS, 2);
    let (took, said) = other.end(how);
    println!("a process with 2 leases and 8 waiters ended after {took:?}");
    assert_eq!(server.contenders(THEIRS), 1, "it has left the queue: {said}");
    assert_eq!(server.left_over(), keys, "{said}");
    assert_eq!(keys.len(), 1, "only the lock of this process: {keys:?}");
    assert_eq!(server.sessions(), sessions, "its sessions are closed");
    for key in [OWN, ONCE] {
        released(&client.lock(key).try_acquire().wait().unwrap().expect("free"));
    }
    released(&theirs);
    said
}

fn an_exit_leaves_nothing(on: On) {
    let said = leaves_nothing(on, "exit");
    assert!(!said.contains("came back"), "nobody hears of it: {said}");
}

fn a_shutdown_leaves_nothing_and_tells_everybody(on: On) {
    leaves_nothing(on, "shutdown");
}

fn an_exit_waits_no_longer_than_it_may(on: On) {
    let server = on.server();
    let client = on.client(server.addr());
    let theirs = lock(&client, THEIRS, LONG * 6).acquire().wait().unwrap();
    let other = Other::start("exit::the_other_process", &server.url());
    until_contenders(&*server, THEIRS, 2);
    server.pause();
    let (took, _) = other.end("exit");
    server.resume();
    println!("with a server that doesn't answer a process ended after {took:?}");
    assert!(took > ms(500) && took < LONG / 2, "{took:?}");
    released(&theirs);
}
