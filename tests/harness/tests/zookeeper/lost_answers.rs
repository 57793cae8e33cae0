//! Requests whose answers are lost: a node is found again, and none is left behind.

use dlock::Mode;
use dlock_harness::backends::TestServer;
use dlock_harness::proxy::{Action, Direction, Proxy};

use crate::common::{LONG, client, lock, ms, released, server, until};

/// The bytes that only the creation of a claim's node has.
const CREATE: &str = "1 dlock:";

#[test]
fn a_node_whose_creation_has_no_answer_is_found_again() {
    let server = server();
    let proxy = Proxy::new(TestServer::addr(&server)).unwrap();
    let client = client(proxy.addr());
    let mut fence = 0;
    for n in 0..200 {
        let rule = proxy.rule(Direction::ToServer, CREATE, 1..=1, Action::CutAfterForward);
        let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
        assert_eq!(rule.fired(), 1, "{n}: the fault was not injected");
        assert_eq!(server.contenders("k"), 1, "{n}: one node and no second one");
        assert!(lease.fence().unwrap() > fence, "{n}");
        fence = lease.fence().unwrap();
        released(&lease);
    }
    assert_eq!(server.contenders("k"), 0);
}

#[test]
fn a_reader_whose_creation_never_arrives_has_a_node_of_its_own() {
    let server = server();
    let proxy = Proxy::new(TestServer::addr(&server)).unwrap();
    let client = client(proxy.addr());
    let reader = || lock(&client, "k", LONG).mode(Mode::Shared).acquire().wait().unwrap();
    let first = reader();
    let rule = proxy.rule(Direction::ToServer, CREATE, 1..=1, Action::CutBefore);
    let second = reader();
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    assert_eq!(server.contenders("k"), 2);
    released(&first);
    assert_eq!(server.contenders("k"), 1);
    released(&second);
}

#[test]
fn a_node_whose_deletion_has_no_answer_is_gone() {
    let server = server();
    let proxy = Proxy::new(TestServer::addr(&server)).unwrap();
    let (holder, other) = (client(TestServer::addr(&server)), client(proxy.addr()));
    let held = lock(&holder, "k", LONG).acquire().wait().unwrap();
    for n in 0..200 {
        let action = if n % 2 == 0 { Action::CutAfterForward } else { Action::CutBefore };
        // The try creates a node and deletes it.
        let rule = proxy.rule(Direction::ToServer, "__lock__00000", 1..=1, action);
        assert!(lock(&other, "k", LONG).try_acquire().wait().unwrap().is_none(), "{n}");
        // A try waits 250 ms for the deletion. After that the deletion continues in the background.
        assert!(rule.wait_fired(1, LONG), "{n}: the fault was not injected");
    }
    until("only the holder is left", ms(5000), || server.contenders("k") == 1);
    released(&held);
    released(&lock(&other, "k", LONG).acquire().wait().unwrap());
}
