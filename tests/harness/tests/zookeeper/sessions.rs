//! Sessions: their timeout, and what it costs to keep them alive.

use dlock_harness::backends::TestServer;
use dlock_harness::backends::zookeeper::ZooKeeper;

use crate::common::{LONG, begin, client, lock, ms, released, server};

#[test]
fn a_lease_counts_for_three_quarters_of_the_negotiated_timeout() {
    let server = server();
    let client = client(TestServer::addr(&server));
    for (asked, granted) in [(ms(4000), ms(4000)), (ms(9000), ms(9000)), (LONG * 10, ms(30_000))] {
        let lock = client.lock("k").ttl(asked);
        let lease = lock.acquire().wait().unwrap();
        assert_eq!(lease.ttl(), granted, "asked for {asked:?}");
        assert!(server.time_left("k") >= granted * 4 / 3, "{:?}", server.time_left("k"));
        released(&lease);
    }
}

#[test]
fn many_locks_cost_one_request_a_renewal() {
    let server = server();
    let client = client(TestServer::addr(&server));
    let begun = std::time::Instant::now();
    let leases: Vec<_> =
        (0..300).map(|n| lock(&client, &format!("k{n}"), ms(4000)).acquire().wait().unwrap()).collect();
    let spread = begun.elapsed();
    // The first renewal sets a watch on each node.
    std::thread::sleep(ms(2500));
    let before = server.requests();
    std::thread::sleep(ms(4000));
    let asked = server.requests() - before;
    // A request serves all leases that are due within a twentieth of the ttl. Three or four renewals of each, and the
    // question itself.
    let most = 4 * (1 + spread.as_millis() / 200) + 1;
    assert!((3..=most).contains(&u128::from(asked)), "{asked} requests in one ttl, {most} at most");
    assert!(leases.iter().all(dlock::Lease::is_held));
    leases.iter().for_each(released);
    assert_eq!(server.left_over(), [""; 0]);
}

#[test]
fn the_wall_clock_of_the_server_counts_for_nothing() {
    let server = ZooKeeper::with_clock().unwrap();
    let [holder, waiter] = [TestServer::addr(&server); 2].map(client);
    for forwards in [true, false] {
        let lease = lock(&holder, "k", ms(4000)).acquire().wait().unwrap();
        let waiting = begin(&lock(&waiter, "k", ms(4000)).wait(LONG * 2));
        server.step_clock(LONG * 360, forwards);
        std::thread::sleep(ms(7000));
        assert!(lease.is_held() && !waiting.is_finished());
        released(&lease);
        released(&waiting.join().unwrap().unwrap());
    }
}
