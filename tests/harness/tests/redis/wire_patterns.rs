//! How the requests look on the wire, so that rules can tell them apart.

use dlock_harness::proxy::{Action, Direction};

use crate::common::{LONG, client, lock, ms, proxy, released, server};

/// A request to acquire: 12 words.
pub(crate) const TAKE: &str = "*12\r\n$7\r\nEVALSHA";
/// A release, or a withdrawal: 10 words.
pub(crate) const GIVE: &str = "*10\r\n$7\r\nEVALSHA";
/// A renewal of one lease: 8 words.
pub(crate) const RENEW: &str = "*8\r\n$7\r\nEVALSHA";
/// The first request of a break, which reads the owner; or an inspection: 7 words.
pub(crate) const READ: &str = "*7\r\n$7\r\nEVALSHA";
/// A break: 9 words.
pub(crate) const BREAK: &str = "*9\r\n$7\r\nEVALSHA";
/// The message that hands a lock over.
pub(crate) const HANDED: &str = "G dlock:";

#[test]
fn the_patterns_name_the_requests() {
    let server = server();
    let (direct, proxy) = (client(server.addr()), proxy(&server));
    let client = client(proxy.addr());
    let seen = |direction, pattern| proxy.rule(direction, pattern, .., Action::Signal);
    let [take, give, renew] = [TAKE, GIVE, RENEW].map(|pattern| seen(Direction::ToServer, pattern));
    let [broken, read] = [BREAK, READ].map(|pattern| seen(Direction::ToServer, pattern));
    let handed = seen(Direction::ToClient, HANDED);
    let lease = lock(&client, "k", ms(9000)).acquire().wait().unwrap();
    assert_eq!((take.fired(), give.fired(), renew.fired()), (1, 0, 0));
    lease.renew(None).wait().unwrap();
    assert_eq!((take.fired(), give.fired(), renew.fired()), (1, 0, 1));
    released(&lease);
    assert_eq!((take.fired(), give.fired(), renew.fired()), (1, 1, 1));
    let holder = lock(&direct, "k", ms(9000)).acquire().wait().unwrap();
    let breaker = client.clone();
    let waiter = std::thread::spawn(move || lock(&client, "k", ms(9000)).acquire().wait().unwrap());
    assert!(take.wait_fired(2, LONG));
    crate::common::until_queued(&server, "k", 1);
    released(&holder);
    released(&waiter.join().unwrap());
    assert_eq!(handed.fired(), 1);
    let _held = lock(&direct, "k", ms(9000)).acquire().wait().unwrap();
    assert!(breaker.break_lock("k").wait().unwrap());
    assert_eq!((read.fired(), broken.fired()), (1, 1));
}
