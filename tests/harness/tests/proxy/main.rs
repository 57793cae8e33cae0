//! What the proxy does to the bytes between a client and a server.

#![allow(clippy::print_stdout, reason = "measurements")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dlock_harness::proxy::Proxy;

mod modes;
mod rules;

const LONG: Duration = Duration::from_secs(10);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A server that sends back what it gets, and remembers it, with `|` for the end of a connection.
struct Echo {
    addr: SocketAddr,
    got: Arc<Mutex<String>>,
}

impl Echo {
    fn start(answer: fn(&[u8]) -> Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo = Self { addr: listener.local_addr().unwrap(), got: Arc::default() };
        let got = echo.got.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, got) = (stream.unwrap(), got.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        got.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
                        let _ = stream.write_all(&answer(&buffer[..length]));
                    }
                    got.lock().unwrap().push('|');
                });
            }
        });
        echo
    }

    fn got(&self) -> String {
        self.got.lock().unwrap().clone()
    }
}

fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !what() {
        assert!(Instant::now() < end, "it didn't come about");
        std::thread::sleep(ms(1));
    }
}

fn make() -> (Echo, Proxy) {
    let echo = Echo::start(<[u8]>::to_vec);
    let proxy = Proxy::new(echo.addr).unwrap();
    (echo, proxy)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn say(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

fn hear(mut stream: &TcpStream, text: &str) {
    let mut buffer = vec![0; text.len()];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), text);
}

fn silent(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(ms(50))).unwrap();
    let read = stream.read(&mut [0; 100]);
    assert!(read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{read:?}");
    stream.set_read_timeout(Some(LONG)).unwrap();
}

fn is_reset(mut stream: &TcpStream) {
    let read = stream.read(&mut [0; 100]);
    assert!(read.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{read:?}");
}
