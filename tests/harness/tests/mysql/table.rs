//! The table of leases: who makes it, and what it survives.

use std::time::Instant;

use dlock::{Client, Kind};
use dlock_harness::backends::mysql::MySql;
use dlock_harness::backends::{TestServer, with_option};
use dlock_harness::proxy::{Mode, Proxy};
use dlock_harness::scenario::next;

use crate::common::{LONG, acquired, begin, lock, ms, released, says, server, until};

/// A client that shares nothing with any other of this process. `login`: as in a URL.
fn client(server: &MySql, login: &str) -> Client {
    let url = TestServer::url(server).replace("://", &format!("://{login}"));
    Client::connect(&with_option(&url, &format!("mode=table&connect_timeout=5.{:06}", next()))).unwrap()
}

#[test]
fn fences_go_on_when_the_tables_are_dropped() {
    let server = server();
    let client = client(&server, "");
    let before = acquired(&client, "k");
    server.rows("DROP DATABASE dlock");
    // The server's time is part of a fence.
    std::thread::sleep(ms(1100));
    let after = acquired(&client, "other");
    assert!(after.fence() > before.fence(), "{:?} after {:?}", after.fence(), before.fence());
    assert_eq!(before.renew(None).wait().unwrap_err().kind(), Kind::Lost);
    released(&after);
}

#[test]
fn a_user_who_may_not_make_the_tables_is_told_how() {
    let server = server();
    server.rows("CREATE USER 'plain'@'%' IDENTIFIED BY 'word'");
    let ours = client(&server, "plain:word@");
    let error = ours.lock("k").try_acquire().wait().unwrap_err();
    says(&error, false, &["CREATE TABLE", "dlock_locks", "dlock_fences", "right"]);
    released(&acquired(&client(&server, ""), "k"));
    server.rows("GRANT SELECT, INSERT, UPDATE, DELETE ON dlock.* TO 'plain'@'%'");
    let ours = client(&server, "plain:word@");
    released(&acquired(&ours, "k"));
}

#[test]
fn rows_of_keys_that_nobody_locks_any_more_go() {
    let server = server();
    let client = client(&server, "");
    released(&acquired(&client, "k"));
    let dead: Vec<_> = (0..500).map(|n| format!("('dead-{n}', 1, 1, 'a x 1 1 1 - a')")).collect();
    server.rows(&format!("INSERT INTO dlock.dlock_locks VALUES {}", dead.join(",")));
    let held = acquired(&client, "held");
    let rows = || server.rows("SELECT name FROM dlock.dlock_locks");
    until("they are swept", LONG * 3, || {
        (0..50).for_each(|_| released(&acquired(&client, "k")));
        rows() == ["held"]
    });
    released(&held);
}

#[test]
fn keys_that_differ_a_little_are_different_locks() {
    let server = server();
    let (a, b) = (client(&server, ""), client(&server, ""));
    let long = "k".repeat(512);
    let keys = [
        "Foo",
        "foo",
        "foo ",
        "f\u{f6}o",
        "fo\u{f3}",
        "it's",
        "it\\'s",
        "a\nb",
        "%",
        "_",
        &long,
        &long[1..],
        "\u{1f512}",
    ];
    let held: Vec<_> = keys.iter().map(|key| acquired(&a, key)).collect();
    for key in keys {
        assert!(lock(&b, key, LONG).try_acquire().wait().unwrap().is_none(), "{key:?}");
    }
    let mut listed = b.list("").wait().unwrap();
    listed.sort();
    let mut expected = keys.map(str::to_owned);
    expected.sort();
    assert_eq!(listed, expected);
    held.iter().for_each(released);
    assert_eq!(b.list("").wait().unwrap(), [""; 0]);
    assert_eq!(server.rows("SELECT COUNT(*) FROM dlock.dlock_locks"), ["0"]);
}

#[test]
fn a_session_that_is_killed_loses_no_lock() {
    let server = server();
    let (a, b) = (client(&server, ""), client(&server, ""));
    let lease = acquired(&a, "k");
    let waiting = begin(&lock(&b, "k", LONG));
    until("it waits", LONG, || a.contenders("k").wait().unwrap().len() == 2);
    server.kill_sessions(server.clients());
    lease.renew(None).wait().unwrap();
    assert!(lease.is_held());
    released(&lease);
    released(&waiting.join().unwrap().unwrap());
}

#[test]
fn an_uncontended_acquire_and_its_release_are_one_request_each() {
    let server = server();
    let proxy = Proxy::new(TestServer::addr(&server)).unwrap();
    let url = format!("mysql://{}?mode=table", proxy.addr());
    let client = Client::connect(&url).unwrap();
    released(&acquired(&client, "k"));
    let way = ms(100);
    proxy.both(Mode::Delay(way));
    let took = |what: &str, requests: u32, call: &mut dyn FnMut()| {
        let begun = Instant::now();
        call();
        let took = begun.elapsed();
        println!("{what}: {took:?}");
        assert!(took < way * 2 * (requests + 1), "{what}: {took:?}");
    };
    let mut lease = None;
    took("acquire", 1, &mut || lease = Some(acquired(&client, "k")));
    let lease = lease.unwrap();
    took("renewal", 2, &mut || lease.renew(None).wait().unwrap());
    took("release", 1, &mut || released(&lease));
}

#[test]
fn a_database_may_have_any_name() {
    let server = server();
    let url = format!("{}/odd%20%60name?mode=table", TestServer::url(&server));
    let client = Client::connect(&url).unwrap();
    released(&acquired(&client, "k"));
    assert_eq!(server.rows("SELECT COUNT(*) FROM `odd ``name`.dlock_locks"), ["0"]);
}
