//! Waiters whose connections are cut, and who wait for longer than their ttl.

use crate::common::{LONG, On, acquired, begin, lock, ms, proxy, released, until_contenders};

scenarios! {
    a_waiter_is_woken_after_its_connection_was_cut;
    a_waiter_keeps_its_place_for_longer_than_its_ttl;
}

fn a_waiter_is_woken_after_its_connection_was_cut(on: On) {
    let server = on.server();
    let (a, proxy) = (on.client(server.addr()), proxy(&*server));
    let b = on.client(proxy.addr());
    for round in 0..5 {
        let key = format!("k{round}");
        let holder = acquired(&a, &key);
        let waiter = begin(&lock(&b, &key, ms(60_000)));
        until_contenders(&*server, &key, 2);
        std::thread::sleep(ms(20 * round));
        assert!(proxy.cut() > 0);
        released(&holder);
        released(&waiter.join().unwrap().expect("it listens again, and looks"));
    }
}

fn a_waiter_keeps_its_place_for_longer_than_its_ttl(on: On) {
    let (server, ttl) = (on.server(), on.ttl(ms(600)));
    let (a, b) = (on.client(server.addr()), on.client(server.addr()));
    let holder = acquired(&a, "k");
    let waiter = begin(&lock(&b, "k", ttl).wait(LONG * 6));
    until_contenders(&*server, "k", 2);
    let queue = server.queue("k");
    std::thread::sleep(ttl * 3);
    assert_eq!(server.queue("k"), queue);
    released(&holder);
    let lease = waiter.join().unwrap().unwrap();
    assert!(lease.valid_for() > ttl / 2);
    released(&lease);
}
