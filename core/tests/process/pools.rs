//! What blocks in one place stops nothing in another.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;

use dlock::Client;

use crate::shim::HANGING;
use crate::{alone, ms, until};

/// Far more than there are threads for.
const MANY: u32 = 100;

#[test]
fn blocked_callbacks_stop_no_resolution() {
    if !alone("pools::blocked_callbacks_stop_no_resolution") {
        return;
    }
    let inside = Arc::new(AtomicU32::new(0));
    let (release, released) = channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    for _ in 0..MANY {
        let (inside, released) = (inside.clone(), released.clone());
        dlock::callbacks::pool(move || {
            inside.fetch_add(1, Ordering::SeqCst);
            let _ = released.lock().unwrap().recv();
        });
    }
    until("all threads are taken", || inside.load(Ordering::SeqCst) >= 64);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port();
    let client = Client::connect(&format!("redis://localhost:{port}?connect_timeout=60s")).unwrap();
    let _asked = client.ping().on_done(drop);
    until("the name was resolved", || server.accept().is_ok());
    // All of them have their turn.
    drop(release);
    until("every callback has run", || inside.load(Ordering::SeqCst) == MANY);
}

#[test]
fn hanging_resolutions_stop_no_callback() {
    if !alone("pools::hanging_resolutions_stop_no_callback") {
        return;
    }
    let clients: Vec<_> =
        (0..MANY).map(|i| Client::connect(&format!("redis://hang-{i}.test:1?connect_timeout=60s")).unwrap()).collect();
    let _asked: Vec<_> = clients.iter().map(|client| client.ping().on_done(drop)).collect();
    until("all threads are taken", || HANGING.load(Ordering::SeqCst) >= 64);
    let (tell, told) = channel();
    dlock::callbacks::pool(move || tell.send(()).unwrap());
    told.recv_timeout(ms(10_000)).expect("a callback has its turn");
    // An address needs no resolver.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let numbers = Client::connect(&format!("redis://{}?connect_timeout=60s", server.local_addr().unwrap())).unwrap();
    let _asked = numbers.ping().on_done(drop);
    until("the address was reached", || server.accept().is_ok());
}
