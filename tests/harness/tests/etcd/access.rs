//! Roles, logins that nobody asks for, URLs: what is refused beside what every backend shows.

use dlock::{Client, Kind};
use dlock_harness::backends::etcd::Etcd;

use crate::common::{LONG, acquired, begin, lock, ms, next, released, server};

fn as_user(server: &Etcd, user: &str) -> Client {
    Client::connect(&format!("etcd://{user}@{}?connect_timeout=5.{:06}", server.addr(), next())).unwrap()
}

#[test]
fn a_user_has_the_locks_that_its_role_allows() {
    let mut server = server();
    server.ask_for_login().unwrap();
    let [a, b] = [(); 2].map(|()| as_user(&server, "app:swordfish-4711"));
    let lease = acquired(&a, "app/k");
    let waiter = begin(&lock(&b, "app/k", ms(60_000)));
    std::thread::sleep(ms(200));
    released(&lease);
    released(&waiter.join().unwrap().unwrap());
    let error = a.lock("other").try_acquire().wait().unwrap_err();
    assert!(error.kind() == Kind::Backend && !error.is_temporary(), "{error}");
    assert!(error.message().contains("permission"), "{error}");
    // The server has forgotten all logins.
    server.restart().unwrap();
    released(&acquired(&a, "app/k"));
}

#[test]
fn a_login_that_is_not_asked_for_is_told_at_once() {
    let server = server();
    let error = as_user(&server, "app:word").lock("k").wait(LONG).acquire().wait().unwrap_err();
    assert!(!error.is_temporary() && error.message().contains("leave out username"), "{error}");
}

#[test]
fn what_is_no_etcd_url_is_refused() {
    for url in ["etcd://host/path", "etcd://:word@host", "etcd://h1:x", "etcd://h1?db=1", "etcds://h1?cert=/nowhere"] {
        assert_eq!(Client::connect(url).unwrap_err().kind(), Kind::Invalid, "{url}");
    }
    let client = Client::connect("etcd://user:word@h1,h2:99?dial_timeout=2s").unwrap();
    assert_eq!(client.config().url(), "etcd://user@h1:2379,h2:99?dial_timeout=2s");
    let error = client.lock("k").ttl(ms(1999)).acquire().wait().unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.message().contains("2s"), "{error}");
}
