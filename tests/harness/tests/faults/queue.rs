//! Waiters that give up, and leases that are dropped.

use std::time::Instant;

use dlock::Kind;

use crate::common::{LATE, LONG, On, SLACK, acquired, lock, ms, released, until, until_contenders};

scenarios! {
    a_waiter_whose_time_is_up_leaves_the_queue;
    a_waiter_that_is_cancelled_leaves_the_queue;
    a_lease_that_is_dropped_is_given_back;
}

fn a_waiter_whose_time_is_up_leaves_the_queue(on: On) {
    let server = on.server();
    let (a, b) = (on.client(server.addr()), on.client(server.addr()));
    let holder = acquired(&a, "k");
    let (wait, begun) = (ms(1000), Instant::now());
    let error = lock(&b, "k", LONG * 3).wait(wait).acquire().wait().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error:?}");
    let took = begun.elapsed();
    assert!(took < wait + SLACK, "{took:?}");
    // On a machine this busy it is still being withdrawn.
    until("it has left the queue", if took < wait + LATE { ms(0) } else { SLACK }, || server.contenders("k") == 1);
    released(&holder);
}

fn a_waiter_that_is_cancelled_leaves_the_queue(on: On) {
    let server = on.server();
    let (a, b) = (on.client(server.addr()), on.client(server.addr()));
    let holder = acquired(&a, "k");
    let waiting = lock(&b, "k", LONG * 3).acquire();
    let canceller = waiting.canceller();
    let waiter = std::thread::spawn(move || waiting.wait());
    until_contenders(&*server, "k", 2);
    canceller.cancel();
    assert_eq!(waiter.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(server.contenders("k"), 1);
    released(&holder);
}

fn a_lease_that_is_dropped_is_given_back(on: On) {
    let server = on.server();
    let client = on.client(server.addr());
    drop(acquired(&client, "k"));
    until("it is free", ms(2000), || server.owner("k").is_none());
}
