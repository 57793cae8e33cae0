//! Users who may not use channels: nobody is told anything, and all come in as they asked all the same.

use std::sync::mpsc::channel;

use dlock::{Client, Lock};
use dlock_harness::backends::redis::Redis;
use dlock_harness::proxy::{Mode, Proxy};
use dlock_harness::scenario::warnings;

use crate::common::{LONG, client, lock, ms, queued, released, server, until_queued};

fn with_user() -> Redis {
    let server = server();
    server.command(&["ACL", "SETUSER", "deaf", "on", ">word", "~*", "+@all", "resetchannels"]);
    server
}

fn deaf(port: u16, number: usize) -> Client {
    Client::connect(&format!("redis://deaf:word@127.0.0.1:{port}?connect_timeout=5.{:06}", number + 1)).unwrap()
}

/// In which order these come in, each so many times, if they ask one after another and again as soon as they have
/// released.
fn order(server: &Redis, holder: &Lock, locks: Vec<Lock>, times: usize) -> Vec<usize> {
    let lease = holder.acquire().wait().unwrap();
    let (tell, told) = channel();
    let threads: Vec<_> = (0..)
        .zip(locks)
        .map(|(n, lock)| {
            let tell = tell.clone();
            let waiting = lock.acquire();
            let thread = std::thread::spawn(move || {
                let mut waiting = Some(waiting);
                for _ in 0..times {
                    let lease = waiting.take().unwrap_or_else(|| lock.acquire()).wait().unwrap();
                    tell.send(n).unwrap();
                    released(&lease);
                }
            });
            until_queued(server, "k", n as u64 + 1);
            thread
        })
        .collect();
    drop(tell);
    released(&lease);
    let order = told.iter().collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    order
}

#[test]
fn without_messages_they_come_in_the_order_in_which_they_asked() {
    let server = with_user();
    let holder = lock(&deaf(server.port(), 0), "k", LONG);
    let locks = (1..=5).map(|n| lock(&deaf(server.port(), n), "k", LONG * 2).wait(LONG * 3).fair(n % 2 == 0)).collect();
    assert_eq!(order(&server, &holder, locks, 2), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    assert_eq!(queued(&server, "k"), 0);
}

#[test]
fn a_holder_who_may_not_publish_overtakes_nobody() {
    let server = with_user();
    let holder = lock(&deaf(server.port(), 10), "k", LONG);
    // They look by themselves every 100 ms.
    let locks = (0..3).map(|_| lock(&client(server.addr()), "k", ms(300))).collect();
    assert_eq!(order(&server, &holder, locks, 1), [0, 1, 2]);
    let others = (11..=13).map(|n| lock(&deaf(server.port(), n), "k", ms(300)));
    let locks = others.chain([lock(&client(server.addr()), "k", ms(300))]).collect();
    assert_eq!(order(&server, &lock(&client(server.addr()), "k", LONG), locks, 1), [0, 1, 2, 3]);
}

#[test]
fn the_turn_of_one_that_is_gone_is_kept_for_a_while_only() {
    let server = with_user();
    let proxy = Proxy::new(server.addr()).unwrap();
    let holder = lock(&deaf(server.port(), 20), "k", LONG).acquire().wait().unwrap();
    let gone = lock(&deaf(proxy.port(), 21), "k", ms(60_000)).acquire();
    let canceller = gone.canceller();
    let gone = std::thread::spawn(move || gone.wait());
    until_queued(&server, "k", 1);
    let next = lock(&deaf(server.port(), 22), "k", ms(60_000)).acquire();
    let next = std::thread::spawn(move || next.wait().unwrap());
    until_queued(&server, "k", 2);
    proxy.both(Mode::Drop);
    released(&holder);
    // Two seconds; its ttl would be a minute.
    released(&next.join().unwrap());
    canceller.cancel();
    assert!(gone.join().unwrap().is_err());
}

#[test]
fn that_no_messages_come_is_told_once() {
    let server = with_user();
    let told = warnings(&server.port().to_string());
    let deaf = deaf(server.port(), 30);
    for _ in 0..3 {
        released(&lock(&deaf, "k", LONG).acquire().wait().unwrap());
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    released(&lock(&client(server.addr()), "k", LONG).acquire().wait().unwrap());
    let note = told.recv_timeout(LONG).expect("a warning");
    assert!(note.contains("&dlock:c:*") && note.contains("250 ms"), "{note}");
    released(&lock(&deaf, "k", LONG).acquire().wait().unwrap());
    assert!(told.try_recv().is_err(), "it is told more than once, or of one who hears");
}
