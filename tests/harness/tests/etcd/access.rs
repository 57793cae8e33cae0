//! Logins, permissions, TLS, limits: what is refused, and what is said of it.

use dlock::{Client, Kind};
use dlock_harness::backends::etcd::{Etcd, EtcdOptions};
use dlock_harness::server::Certs;

use crate::common::{LONG, acquired, begin, lock, ms, next, released, server};

fn with_users(server: &Etcd) {
    for line in [
        "user add root:rootword",
        "role add locks",
        "role grant-permission locks --prefix=true readwrite app/",
        "user add app:word",
        "user grant-role app locks",
        "auth enable",
    ] {
        server.ctl(&line.split(' ').collect::<Vec<_>>());
    }
}

fn as_user(server: &Etcd, user: &str) -> Client {
    Client::connect(&format!("etcd://{user}@{}?connect_timeout=5.{:06}", server.addr(), next())).unwrap()
}

#[test]
fn a_user_has_the_locks_that_its_role_allows() {
    let mut server = server();
    with_users(&server);
    let (a, b) = (as_user(&server, "app:word"), as_user(&server, "app:word"));
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
fn a_login_that_is_refused_is_told_at_once() {
    let server = server();
    let error = as_user(&server, "app:word").lock("k").wait(LONG).acquire().wait().unwrap_err();
    assert!(!error.is_temporary() && error.message().contains("leave out username"), "{error}");
    with_users(&server);
    let error = as_user(&server, "app:wrong").lock("k").wait(LONG).acquire().wait().unwrap_err();
    assert!(!error.is_temporary() && error.message().contains("check username and password"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let nobody = Client::connect(&format!("etcd://{}", server.addr())).unwrap();
    let error = nobody.lock("k").wait(LONG).acquire().wait().unwrap_err();
    assert!(!error.is_temporary() && error.message().contains("asks for username"), "{error}");
}

#[test]
fn by_tls() {
    let server = Etcd::start(&EtcdOptions::new().tls()).unwrap();
    let ca = server.certs().ca.display().to_string();
    let client = Client::connect(&format!("{}?ca={ca}", server.url())).unwrap();
    let other = Client::connect(&format!("{}?ca={ca}&connect_timeout=4s", server.url())).unwrap();
    let lease = acquired(&client, "k");
    let waiter = begin(&lock(&other, "k", ms(60_000)));
    std::thread::sleep(ms(200));
    released(&lease);
    released(&waiter.join().unwrap().unwrap());
    let error = Client::connect(&server.url()).unwrap().lock("k").wait(LONG).acquire().wait().unwrap_err();
    assert!(!error.is_temporary() && error.message().contains("check ca"), "{error}");
    let clear = Client::connect(&format!("etcd://{}", server.addr())).unwrap();
    let error = clear.lock("k").wait(LONG).acquire().wait().unwrap_err();
    println!("in clear to a port with TLS: {error}");
    assert_eq!(error.kind(), Kind::Backend);
}

#[test]
fn certificates_are_read_for_each_connection() {
    let mut server = Etcd::start(&EtcdOptions::new().tls()).unwrap();
    let ca = server.certs().ca.clone();
    let url = format!("{}?ca={}&connect_timeout=5.{:06}", server.url(), ca.display(), next());
    let client = Client::connect(&url).unwrap();
    released(&acquired(&client, "k"));
    // Of another authority, and in the middle of being written when they are needed first.
    Certs::make(ca.parent().unwrap()).unwrap();
    let whole = std::fs::read(&ca).unwrap();
    std::fs::write(&ca, "").unwrap();
    server.restart().unwrap();
    let _ = client.ping().wait();
    let error = client.lock("other").try_acquire().wait().unwrap_err();
    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
    assert!(error.message().contains(&ca.display().to_string()), "{error}");
    let mut waiting = client.lock("k").wait(LONG).acquire();
    assert!(waiting.wait_for(ms(50)).is_none(), "a file that is being replaced ends no wait");
    std::fs::write(&ca, whole).unwrap();
    released(&waiting.wait().unwrap());
    released(&acquired(&Client::connect(&url).unwrap(), "k"));
}

#[test]
fn a_full_database_is_told() {
    let server = Etcd::start(&EtcdOptions::new().args(&["--quota-backend-bytes", "60000"])).unwrap();
    let client = Client::connect(&server.url()).unwrap();
    released(&acquired(&client, "k"));
    let big = "x".repeat(40_000);
    while server.try_ctl(&["put", "big", &big]).is_ok() {}
    let error = client.lock("k").try_acquire().wait().unwrap_err();
    assert!(error.is_temporary() && error.message().contains("quota-backend-bytes"), "{error}");
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
