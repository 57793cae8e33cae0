//! Requests and replies that are lost or late: what becomes of the leases at the server.

use dlock_harness::proxy::{Action, Direction, Mode};

use crate::common::{
    LONG, acquired, begin, client, cold, contenders, lease_of, lock, ms, proxy, released, server, until,
};

/// What only a put has: the beginning of what dlock writes into a key.
const PUT: &str = "1 dlock:";

/// A put under it may still be done.
#[test]
fn a_lease_with_a_late_put_is_given_to_no_further_claim() {
    let server = server();
    let proxy = proxy(&server);
    let client = client(proxy.addr());
    let beside = lock(&client, "beside", ms(3000)).acquire().wait().unwrap();
    let rule = proxy.rule(Direction::ToServer, PUT, 1..=1, Action::HoldRequest);
    released(&lock(&client, "k", ms(3000)).acquire().wait().unwrap());
    assert_eq!(rule.fired(), 1, "the fault was not injected");
    proxy.release_held();
    let fresh = lock(&client, "fresh", ms(3000)).acquire().wait().unwrap();
    let [fresh_key, beside_key] = ["fresh", "beside"].map(|name| contenders(&server, name)[0].clone());
    assert_ne!(lease_of(&fresh_key), lease_of(&beside_key), "that lease is given to no further claim");
    assert!(beside.is_held());
    released(&fresh);
    released(&beside);
    released(&acquired(&client, "k"));
}

#[test]
fn a_lease_whose_grant_was_never_answered_is_taken_back() {
    let server = server();
    let proxy = proxy(&server);
    let leases = || server.ctl(&["lease", "list"]).lines().count();
    let none = leases();
    let client = cold(&proxy.addr().to_string());
    proxy.set(Direction::ToClient, Mode::Drop);
    let waiter = begin(&lock(&client, "k", ms(30_000)));
    until("a lease was granted", LONG, || leases() > none);
    proxy.cut();
    proxy.set(Direction::ToClient, Mode::Pass);
    let lease = waiter.join().unwrap().unwrap();
    until("only the one in use is left", LONG, || leases() == none + 1);
    released(&lease);
}
