//! What is asked of the server, and what is left there.

use crate::common::{
    LONG, acquired, asked, begin, client, cold, lock, ms, released, requests, server, settled, until, until_contenders,
};

#[test]
fn a_free_lock_is_one_transaction_and_so_is_its_release() {
    let server = server();
    let client = client(server.addr());
    let all = || (asked(&server, "KV", "Txn"), asked(&server, "KV", "Range"), asked(&server, "Lease", "LeaseGrant"));
    let before = all();
    for n in 0..10 {
        released(&acquired(&client, &format!("k{n}")));
        released(&lock(&client, "one", ms(30_000)).try_acquire().wait().unwrap().unwrap());
    }
    let after = all();
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (40, 0, 0));
}

#[test]
fn a_busy_try_is_one_request_and_leaves_nothing() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = acquired(&a, "k");
    let (before, revision) = (asked(&server, "KV", "Txn"), server.figure("etcd_debugging_mvcc_current_revision"));
    for _ in 0..10 {
        assert!(b.lock("k").try_acquire().wait().unwrap().is_none());
    }
    assert_eq!(asked(&server, "KV", "Txn") - before, 10);
    assert!((server.figure("etcd_debugging_mvcc_current_revision") - revision).abs() < 0.5, "something was written");
    released(&holder);
}

/// The lease that it shares is older than the hold is long: that takes nothing of it.
#[test]
fn a_short_hold_is_granted_once_and_lasts() {
    let (server, hold) = (server(), ms(400));
    let client = client(server.addr());
    std::thread::sleep(hold * 2);
    let before = asked(&server, "KV", "Txn");
    let short = client.lock("k").max_hold(hold);
    let lease = short.try_acquire().wait().unwrap().expect("nobody has it");
    let begun = std::time::Instant::now();
    assert!(lease.lost_within(Some(LONG)).wait().unwrap());
    assert!(begun.elapsed() >= hold / 2, "held for {:?} of {hold:?}", begun.elapsed());
    released(&short.wait(LONG).acquire().wait().unwrap());
    let requests = asked(&server, "KV", "Txn") - before;
    assert!(requests <= 6, "{requests} requests for two locks");
}

#[test]
fn many_locks_have_one_lease_that_is_kept_alive_once() {
    let server = server();
    let client = client(server.addr());
    let leases: Vec<_> = (0..50).map(|n| lock(&client, &format!("k{n}"), ms(3000)).acquire().wait().unwrap()).collect();
    let keys = server.keys("k");
    let lease = keys[0].rsplit('/').next().unwrap();
    assert!(keys.len() == 50 && keys.iter().all(|key| key.ends_with(lease)), "{keys:?}");
    let before = asked(&server, "Lease", "LeaseKeepAlive");
    std::thread::sleep(ms(6000));
    let kept = asked(&server, "Lease", "LeaseKeepAlive") - before;
    assert!(leases.iter().all(dlock::Lease::is_held));
    println!("50 locks of 3 s: {kept} keep-alives in 6 s");
    assert!((4..=10).contains(&kept), "{kept} keep-alives");
    leases.iter().for_each(released);
}

#[test]
fn a_lock_that_is_not_renewed_has_a_lease_of_its_own_that_goes_with_it() {
    let server = server();
    let client = client(server.addr());
    let leases = || server.ctl(&["lease", "list"]).lines().count();
    let before = leases();
    let lease = lock(&client, "k", ms(30_000)).auto_renew(false).acquire().wait().unwrap();
    assert_eq!(leases(), before + 1);
    released(&lease);
    until("its lease is revoked", LONG, || leases() == before);
}

#[test]
fn a_client_that_is_gone_leaves_no_lease() {
    let server = server();
    let leases = || server.ctl(&["lease", "list"]).lines().count();
    let none = leases();
    let client = client(server.addr());
    for ttl in [2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10_000, 8500] {
        released(&lock(&client, "k", ms(ttl)).acquire().wait().unwrap());
    }
    // Eight classes, with that of the warm-up; the tenth ttl joins the next longer one, the ninth has one of its own.
    assert!((8..=10).contains(&(leases() - none)), "{} leases", leases() - none);
    drop(client);
    until("its leases are revoked", LONG, || leases() == none);
}

#[test]
fn a_thousand_contended_waits_leave_no_watcher() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let watchers = || server.figure("etcd_debugging_mvcc_watcher_total");
    let mut most: f64 = 0.0;
    std::thread::scope(|scope| {
        for client in [&a, &b] {
            scope.spawn(move || {
                for n in 0..500 {
                    let lease = lock(client, &format!("k{}", n % 3), ms(30_000)).acquire().wait().unwrap();
                    std::thread::sleep(ms(1));
                    released(&lease);
                }
            });
        }
        most = most.max(watchers());
    });
    println!("while two clients contended: {most} watchers");
    until("no watcher is left", LONG, || watchers() < 0.5);
}

#[test]
fn deletions_that_are_not_of_the_one_before_cost_a_waiter_nothing() {
    let server = server();
    let (a, b, c, d) =
        (client(server.addr()), client(server.addr()), client(server.addr()), cold(&server.addr().to_string()));
    let holder = acquired(&a, "k");
    let (second, third) = (begin(&lock(&b, "k", ms(30_000))), lock(&c, "k", ms(30_000)));
    until_contenders(&server, "k", 2);
    let third = begin(&third);
    until_contenders(&server, "k", 3);
    // In and out again, behind them.
    let before = settled(&server);
    for _ in 0..5 {
        assert!(lock(&d, "k", ms(30_000)).wait(ms(30)).acquire().wait().is_err());
    }
    let used = requests(&server) - before;
    // Each of them: in, a last look, out, and who holds it; the first one also looks when it begins to listen.
    assert!(used <= 5 * 4 + 1, "{used} requests");
    released(&holder);
    let second = second.join().unwrap().unwrap();
    released(&second);
    released(&third.join().unwrap().unwrap());
}
