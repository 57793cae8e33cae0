//! Who is let in beside what every backend shows: passwords that nobody asks for, certificates that a server asks for.

use std::path::Path;

use dlock::Error;
use dlock_harness::backends::redis::{Redis, RedisOptions};
use dlock_harness::scenario::{self, says, works};

use crate::common::server;

const PASSWORD: &str = "swordfish-4711";

/// The error of a first contact, which comes in time.
fn refused(url: &str) -> Error {
    let error = scenario::refused(url, PASSWORD);
    println!("{error:?}");
    error
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

/// It waits for the end of a line: that it has no TLS is found out only if one came by chance.
#[test]
fn a_port_without_tls_is_found_out_in_time() {
    let server = Redis::start(&RedisOptions::new().password(PASSWORD).tls()).unwrap();
    let (port, url, certs) = server.tls();
    let plain = url.replace(&port.to_string(), &server.port().to_string());
    let _ = refused(&with(&plain, &[("ca", &certs.ca)]));
}

#[test]
fn a_server_that_asks_for_certificates_gets_them() {
    let server = Redis::start(&RedisOptions::new().tls().args(&["--tls-auth-clients", "yes"])).unwrap();
    let (_, url, certs) = server.tls();
    works(&with(&url, &[("ca", &certs.ca), ("cert", &certs.client_cert), ("key", &certs.client_key)]));
    says(&refused(&with(&url, &[("ca", &certs.ca)])), false, &["TLS", "cert"]);
}
