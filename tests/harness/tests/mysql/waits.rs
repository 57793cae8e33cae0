//! Waits at the server: what ends them without the lock, and who may not wait.

use std::process::{Child, Stdio};
use std::time::Instant;

use dlock_harness::backends::TestServer;
use dlock_harness::backends::mysql::MySql;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{LONG, SLACK, acquired, again, begin, client, cold, lock, ms, released, server, until};

const URL: &str = "DLOCK_TEST_HOLDER";

/// Another process, which holds `mine` for a ttl of 2 s and waits for `other`.
struct Other(Child);

impl Other {
    fn start(server: &MySql) -> Self {
        let mut line = again("waits::the_other_process");
        line.env(URL, TestServer::url(server)).stdin(Stdio::piped()).stdout(Stdio::null());
        let other = Self(line.spawn().unwrap());
        until("it holds and waits", LONG, || server.holder("mine").is_some() && server.waiters("other").len() == 1);
        other
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_other_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let client = dlock::Client::connect(&url).unwrap();
    let held = lock(&client, "mine", ms(2000)).acquire().wait().unwrap();
    let waiting = begin(&lock(&client, "other", ms(2000)).wait(LONG * 6));
    drop(waiting.join());
    released(&held);
}

#[test]
fn a_frozen_holder_that_waited_for_another_lock_is_freed_in_its_ttl() {
    let server = server();
    let (a, b) = (client(&server), client(&server));
    let held = acquired(&a, "other");
    let other = Other::start(&server);
    other.signal(Signal::STOP);
    let frozen = Instant::now();
    let lease = lock(&b, "mine", LONG).wait(LONG).acquire().wait().unwrap();
    let took = frozen.elapsed();
    println!("a frozen holder of 2 s was freed after {took:?}");
    assert!(took < ms(2300) + SLACK, "{took:?}");
    // The frozen waiter is granted the other lock, and keeps it for a ttl at most.
    released(&held);
    let begun = Instant::now();
    let next = lock(&b, "other", LONG).wait(LONG).acquire().wait().unwrap();
    let took = begun.elapsed();
    println!("a frozen waiter of 2 s kept it for {took:?}");
    assert!(took < ms(2300) + SLACK, "{took:?}");
    released(&next);
    released(&lease);
}

/// The server ends the statement of a waiter at about the time at which it is granted the lock. MariaDB then answers with
/// NULL, MySQL with an error; the lock may be the waiter's all the same.
#[test]
fn a_statement_that_is_killed_after_its_grant_leaves_nothing() {
    let server = server();
    let (a, b) = (client(&server), client(&server));
    let other = server.session();
    for turn in 0..100 {
        let key = &format!("k{turn}");
        let held = acquired(&a, key);
        let waiting = begin(&lock(&b, key, LONG).wait(LONG));
        until("it waits", LONG, || other.rows(&MySql::waiting(key)).len() == 1);
        let waiter = other.rows(&MySql::waiting(key)).pop().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| released(&held));
            std::thread::sleep(std::time::Duration::from_micros(fastrand::u64(0..400)));
            drop(other.try_rows(&format!("KILL QUERY {waiter}")));
        });
        let lease = waiting.join().unwrap().unwrap();
        released(&lease);
        assert!(!server.held().contains(key), "{key} is still held");
    }
    assert_eq!(server.held(), [""; 0]);
}

#[test]
fn a_wait_that_the_servers_limit_would_end_goes_on() {
    let option = if MySql::is_mariadb() { "--max-statement-time=0.5" } else { "--max-execution-time=500" };
    let server = MySql::with_options(dlock_harness::backends::Setup::default(), &[option]).unwrap();
    let (a, b) = (client(&server), cold(&server, ""));
    let held = acquired(&a, "k");
    let waiting = begin(&lock(&b, "k", LONG).wait(LONG));
    until("it waits", LONG, || server.waiters("k").len() == 1);
    let waiter = server.waiters("k");
    std::thread::sleep(ms(1500));
    assert_eq!(server.waiters("k"), waiter, "it is the same wait");
    released(&held);
    released(&waiting.join().unwrap().unwrap());
}
