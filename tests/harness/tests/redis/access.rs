//! Who is let in: passwords, certificates, and addresses that lead nowhere.

use std::path::Path;
use std::time::{Duration, Instant};

use dlock::{Client, Error, Kind};
use dlock_harness::backends::redis::{Redis, RedisOptions};
use dlock_harness::server::Certs;

use crate::common::{LATE, LONG, SLACK, lock, proxy, released, server};

const TIMEOUT: Duration = Duration::from_millis(1500);
const PASSWORD: &str = "swordfish-4711";

/// The error of a first contact, which comes in time.
fn refused(url: &str) -> Error {
    let url = format!("{url}{}connect_timeout=1500ms", if url.contains('?') { '&' } else { '?' });
    let client = Client::connect(&url).unwrap();
    assert!(!format!("{client:?}").contains(PASSWORD), "{client:?}");
    let begun = Instant::now();
    let ping = client.ping().wait().unwrap_err();
    let error = lock(&client, "k", LONG).acquire().wait().unwrap_err();
    assert!(begun.elapsed() < (TIMEOUT + LATE) * 2 + SLACK, "{:?}", begun.elapsed());
    assert_eq!((ping.kind(), ping.is_temporary()), (error.kind(), error.is_temporary()));
    for text in [format!("{error}"), format!("{error:?}"), format!("{ping:?}"), format!("{client:?}")] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    println!("{error:?}");
    assert_eq!(error.kind(), Kind::Backend);
    error
}

fn says(error: &Error, temporary: bool, words: &[&str]) {
    assert_eq!(error.is_temporary(), temporary, "{error:?}");
    for word in words {
        assert!(error.message().contains(word), "no {word:?} in {error}");
    }
}

fn works(url: &str) {
    let client = Client::connect(url).unwrap();
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    lease.renew(None).wait().unwrap();
    assert_eq!(client.contenders("k").wait().unwrap().len(), 1);
    released(&lease);
    client.ping().wait().unwrap();
}

#[test]
fn a_wrong_password_is_told_and_never_shown() {
    let server = Redis::start(&RedisOptions::new().password(PASSWORD)).unwrap();
    works(&server.url());
    let port = server.port();
    let wrong = refused(&format!("redis://:{PASSWORD}x@127.0.0.1:{port}"));
    says(&wrong, false, &["login", "password"]);
    says(&refused(&format!("redis://nobody:{PASSWORD}@127.0.0.1:{port}")), false, &["login", "username"]);
    says(&refused(&format!("redis://127.0.0.1:{port}")), false, &["password"]);
}

#[test]
fn a_password_that_is_not_asked_for_does_no_harm() {
    let server = server();
    works(&format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port()));
}

fn with(url: &str, options: &[(&str, &Path)]) -> String {
    let options: Vec<_> = options.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
    format!("{url}?{}", options.join("&"))
}

#[test]
fn tls_works_end_to_end_and_says_what_is_wrong() {
    let server = Redis::start(&RedisOptions::new().password(PASSWORD).tls()).unwrap();
    let (port, url, certs) = server.tls();
    works(&with(&url, &[("ca", &certs.ca)]));
    works(&with(&url, &[("ca", &certs.ca), ("cert", &certs.client_cert), ("key", &certs.client_key)]));
    let remedy = ["TLS", "ca", "cert", "sni"];
    // Of another authority; of none that the system knows; for another name.
    let folder = tempfile::TempDir::new().unwrap();
    let others = Certs::make(folder.path()).unwrap();
    says(&refused(&with(&url, &[("ca", &others.ca)])), false, &remedy);
    says(&refused(&url), false, &remedy);
    says(&refused(&(with(&url, &[("ca", &certs.ca)]) + "&sni=elsewhere.example")), false, &remedy);
    // On a port without TLS, which waits for the end of a line: it is found out only if one came by chance.
    let plain = url.replace(&port.to_string(), &server.port().to_string());
    let _ = refused(&with(&plain, &[("ca", &certs.ca)]));
    // And a client that speaks no TLS to a port that does.
    let _ = refused(&format!("redis://:{PASSWORD}@localhost:{port}"));
}

#[test]
fn a_server_that_asks_for_certificates_gets_them() {
    let server = Redis::start(&RedisOptions::new().tls().args(&["--tls-auth-clients", "yes"])).unwrap();
    let (_, url, certs) = server.tls();
    works(&with(&url, &[("ca", &certs.ca), ("cert", &certs.client_cert), ("key", &certs.client_key)]));
    says(&refused(&with(&url, &[("ca", &certs.ca)])), false, &["TLS", "cert"]);
}

#[test]
fn addresses_that_lead_nowhere_are_told_in_time() {
    let server = server();
    let proxy = proxy(&server);
    let url = format!("redis://{}", proxy.addr());
    proxy.refuse(true);
    says(&refused(&url), true, &["refuses the connection", "running"]);
    proxy.refuse(false);
    proxy.blackhole(true);
    says(&refused(&url), true, &["overloaded or stopped"]);
    says(&refused("redis://no-such-host.invalid"), true, &["no-such-host.invalid"]);
    proxy.blackhole(false);
    proxy.cut();
    works(&format!("{url}?connect_timeout=1400ms"));
}
