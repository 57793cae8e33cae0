//! The names of locks: what either server would confuse, and what other clients have to use.

use crate::common::{LONG, acquired, client, lock, released, server};

#[test]
fn keys_that_a_server_would_confuse_are_different_locks() {
    let server = server();
    let (a, b) = (client(&server), client(&server));
    let long = "k".repeat(300);
    let longer = long.clone() + "k";
    let keys = ["Foo", "foo", "foo ", "f\u{f6}o", "fo\u{f3}", "it's", "it\\'s", "it\\", "a\nb", &long, &longer, "🔒"];
    let held: Vec<_> = keys.iter().map(|key| acquired(&a, key)).collect();
    for key in keys {
        assert!(lock(&b, key, LONG).try_acquire().wait().unwrap().is_none(), "{key:?}");
    }
    held.iter().for_each(released);
    assert_eq!(server.held(), [""; 0]);
}

#[test]
fn a_plain_key_is_the_name_that_other_clients_use() {
    let server = server();
    let ours = client(&server);
    let lease = acquired(&ours, "nightly:report_1");
    assert!(server.holder("nightly:report_1").is_some());
    released(&lease);
    server.hold("nightly:report_1", LONG).unwrap();
    assert!(lock(&ours, "nightly:report_1", LONG).try_acquire().wait().unwrap().is_none());
}
