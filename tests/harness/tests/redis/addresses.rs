//! Names with several addresses.

use std::time::Duration;

use dlock::Client;
use dlock_harness::server::Name;
use socket2::{Domain, Socket, Type};

use crate::common::{LONG, lock, released, server};

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
    line.args(["--exact", "addresses::the_second_address_of_a_name_is_reached_though_the_first_is_silent"]);
    name.put(line.env(PORT, server.port().to_string()));
    let done = line.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
