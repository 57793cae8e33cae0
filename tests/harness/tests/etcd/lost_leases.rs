//! Locks that are taken away: the holder learns of it, and changes nothing of another's.

use std::time::Instant;

use crate::common::{acquired, begin, client, contenders, lease_of, lock, ms, released, server, until_contenders};

#[test]
fn a_revoked_lease_is_a_loss_at_the_next_renewal() {
    let server = server();
    let client = client(server.addr());
    let lease = lock(&client, "k", ms(6000)).acquire().wait().unwrap();
    server.ctl(&["lease", "revoke", lease_of(&contenders(&server, "k")[0])]);
    let begun = Instant::now();
    assert!(lease.lost_within(Some(ms(4000))).wait().unwrap(), "it is asked every 2 s");
    println!("told {:?} after the lease was revoked", begun.elapsed());
    released(&acquired(&client, "k"));
}

#[test]
fn a_deleted_key_is_told_at_once_to_a_holder_that_has_waited() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let first = acquired(&a, "k");
    let waiter = begin(&lock(&b, "k", ms(30_000)));
    until_contenders(&server, "k", 2);
    released(&first);
    let lease = waiter.join().unwrap().unwrap();
    let begun = Instant::now();
    server.ctl(&["del", "--prefix", "k/"]);
    assert!(lease.lost_within(Some(ms(5000))).wait().unwrap(), "the watcher tells");
    println!("told {:?} after the key was deleted", begun.elapsed());
}

#[test]
fn a_longer_ttl_is_granted_though_its_lease_had_ended() {
    let server = server();
    let client = client(server.addr());
    let long = lock(&client, "long", ms(9000)).acquire().wait().unwrap();
    let ended = lease_of(&contenders(&server, "long")[0]).to_owned();
    released(&long);
    let lease = lock(&client, "k", ms(5000)).acquire().wait().unwrap();
    server.ctl(&["lease", "revoke", &ended]);
    lease.renew(Some(ms(9000))).wait().unwrap();
    assert_eq!(lease.ttl(), ms(9000));
    assert!(lease.is_held() && lease.valid_for() > ms(8000));
    released(&lease);
}
