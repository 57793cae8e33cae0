//! Certificates that are replaced in place, and names with several addresses.

use std::time::Duration;

use dlock::{Client, Kind};
use dlock_harness::backends::redis::{Redis, RedisOptions};
use dlock_harness::server::{Certs, Name};
use socket2::{Domain, Socket, Type};

use crate::common::{LONG, lock, ms, released, server};

#[test]
fn certificates_are_read_for_each_connection() {
    let mut server = Redis::start(&RedisOptions::new().tls().args(&["--tls-auth-clients", "yes"])).unwrap();
    let (_, url, certs) = server.tls();
    let (certs, at) = (certs.clone(), |path: &std::path::Path| path.display().to_string());
    let (ca, cert, key) = (at(&certs.ca), at(&certs.client_cert), at(&certs.client_key));
    let url = format!("{url}?ca={ca}&cert={cert}&key={key}");
    let client = Client::connect(&url).unwrap();
    released(&lock(&client, "k", LONG).acquire().wait().unwrap());
    // All of another authority, and the server begins with its own at once.
    Certs::make(server.folder()).unwrap();
    server.restart().unwrap();
    released(&lock(&client, "k", LONG).acquire().wait().unwrap());
    released(&lock(&Client::connect(&url).unwrap(), "k", LONG).acquire().wait().unwrap());
    released(
        &lock(&Client::connect(&format!("{url}&connect_timeout=4s")).unwrap(), "k", LONG).acquire().wait().unwrap(),
    );
    // In the middle of being written.
    for path in [&certs.ca, &certs.client_key] {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, "").unwrap();
        for kind in ["normal", "pubsub"] {
            server.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
        }
        // The first may still be asked on the connection that is being lost.
        let _ = client.ping().wait();
        let error = client.lock("other").try_acquire().wait().unwrap_err();
        assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
        assert!(error.message().contains(&at(path)), "{error}");
        let mut waiting = lock(&client, "k", LONG).acquire();
        assert!(waiting.wait_for(ms(50)).is_none(), "a file that is being replaced ends no wait");
        std::fs::write(path, whole).unwrap();
        released(&waiting.wait().unwrap());
    }
    // Another authority's, until its own files are there too: the server is first.
    let old = std::fs::read(&certs.ca).unwrap();
    Certs::make(server.folder()).unwrap();
    let new = std::fs::read(&certs.ca).unwrap();
    server.restart().unwrap();
    std::fs::write(&certs.ca, old).unwrap();
    let mut waiting = lock(&client, "k", LONG).acquire();
    assert!(waiting.wait_for(ms(50)).is_none());
    std::fs::write(&certs.ca, new).unwrap();
    released(&waiting.wait().unwrap());
}

const NAME: &str = "two-addresses.test";
const PORT: &str = "DLOCK_TEST_PORT";

/// Takes no connection any more, and refuses none, as a host that isn't there.
fn silent(port: u16) -> (Socket, Vec<Socket>) {
    let connection = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 2], port)).into();
    let listener = connection();
    listener.bind(&addr).unwrap();
    listener.listen(0).unwrap();
    let mut fill = Vec::new();
    while fill.len() < 1000 {
        let one = connection();
        if one.connect_timeout(&addr, Duration::from_millis(100)).is_err() {
            return (listener, fill);
        }
        fill.push(one);
    }
    panic!("its backlog never gets full");
}

#[test]
fn the_second_address_of_a_name_is_reached_though_the_first_is_silent() {
    if let Ok(port) = std::env::var(PORT) {
        let client = Client::connect(&format!("redis://{NAME}:{port}")).unwrap();
        return released(&lock(&client, "k", LONG).acquire().wait().unwrap());
    }
    let server = server();
    let _silent = silent(server.port());
    let name = Name::new(NAME, &["127.0.0.2", "127.0.0.1"]).unwrap();
    // In a program of its own, which knows the name.
    let mut line = std::process::Command::new(std::env::current_exe().unwrap());
    line.args(["--exact", "rotation::the_second_address_of_a_name_is_reached_though_the_first_is_silent"]);
    name.put(line.env(PORT, server.port().to_string()));
    let done = line.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
