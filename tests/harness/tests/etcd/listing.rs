//! What a cluster says of all its locks, and of itself.

use dlock_harness::backends::etcd::{Etcd, EtcdOptions};

use crate::common::{LONG, acquired, begin, client, lock, released, server, until, until_contenders};

#[test]
fn names_with_contenders_are_listed_and_other_keys_are_not() {
    let server = server();
    let (one, two) = (client(server.addr()), client(server.addr()));
    // Keys that only look like those of contenders.
    for key in ["y/1f", "y", "y/b/c", "z/7"] {
        server.ctl(&["put", key, "1f"]);
    }
    assert_eq!(one.list("").wait().unwrap(), [""; 0]);
    let leases = ["a", "a/b", "b"].map(|key| acquired(&one, key));
    let waiting = begin(&lock(&two, "a", LONG));
    // With the key of "a/b", which stands below it too.
    until_contenders(&server, "a", 3);
    for (prefix, names) in [("", vec!["a", "a/b", "b"]), ("a", vec!["a", "a/b"]), ("a/", vec!["a/b"]), ("c", vec![])] {
        assert_eq!(one.list(prefix).wait().unwrap(), names, "{prefix:?}");
    }
    leases.iter().for_each(released);
    released(&waiting.join().unwrap().unwrap());
    assert_eq!(two.list("").wait().unwrap(), [""; 0]);
}

#[test]
fn a_lock_whose_lease_was_lengthened_is_listed() {
    let server = server();
    let client = client(server.addr());
    let lease = lock(&client, "a", LONG).acquire().wait().unwrap();
    lease.renew(Some(LONG * 4)).wait().unwrap();
    assert_eq!(client.list("").wait().unwrap(), ["a"]);
    released(&lease);
}

#[test]
fn a_member_without_space_is_a_finding() {
    let server = Etcd::start(&EtcdOptions::new().args(&["--quota-backend-bytes", "60000"])).unwrap();
    let client = client(server.addr());
    assert_eq!(client.diagnose().wait().unwrap(), [""; 0]);
    let value = "x".repeat(10_000);
    until("it is full", LONG, || server.try_ctl(&["put", "filler", &value]).is_err());
    let found = client.diagnose().wait().unwrap();
    assert!(found.len() == 1 && found[0].contains("no space left") && found[0].contains("alarm disarm"), "{found:?}");
}
