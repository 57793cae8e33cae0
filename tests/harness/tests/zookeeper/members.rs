//! Ensembles whose members die, hang, come back and are cut off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dlock::{Client, Lease};
use dlock_harness::backends::TestServer;
use dlock_harness::backends::zookeeper::{Cluster, ZooKeeper};
use dlock_harness::proxy::{Direction, Mode, Proxy};

use crate::common::{LONG, acquired, begin, client, lock, ms, patient_client, released, until, until_contenders};

/// The ttl of the leases of holders that lose their member, mostly.
const TTL: Duration = Duration::from_secs(6);
/// The shortest ttl. It is short in comparison with the time by which a leader that is cut off may outlive the election of
/// the next one.
const SHORTEST: Duration = Duration::from_secs(4);
/// The time in which a session ends, whatever happens: its timeout, once more after an election, and the election.
const ENDS: Duration = Duration::from_secs(40);

fn addrs<'a>(members: impl IntoIterator<Item = &'a ZooKeeper>) -> String {
    members.into_iter().map(|member| TestServer::addr(member).to_string()).collect::<Vec<_>>().join(",")
}

/// Returns all members but this one.
fn others(cluster: &Cluster, at: usize) -> impl Iterator<Item = &ZooKeeper> {
    cluster.members.iter().enumerate().filter(move |(n, _)| *n != at).map(|(_, member)| member)
}

/// Waits until a member serves its clients again: it answers by way of the leader.
fn until_it_serves(member: &ZooKeeper) {
    let client = Client::connect(&member.url()).unwrap();
    until("it serves again", ENDS, || client.ping().wait().is_ok());
}

/// The time of an event, once it has happened.
type Time = Arc<Mutex<Option<Instant>>>;

/// Notes the time at which the loss of the lease is reported.
fn lost_at(lease: &Lease) -> Time {
    let time = Time::default();
    let note = time.clone();
    lease.on_lost_here(move || *note.lock().unwrap() = Some(Instant::now()));
    time
}

/// Begins to wait for a lock. The result has the time of the grant.
fn waits(client: &Client, key: &str, ttl: Duration) -> JoinHandle<(Instant, Lease)> {
    let op = client.lock(key).ttl(ttl).wait(ENDS).acquire();
    std::thread::spawn(move || {
        let lease = op.wait().unwrap();
        (Instant::now(), lease)
    })
}

/// The times of a holder, in milliseconds before the fault: those of its acquire and its renewals. Without renewals the
/// lease is renewed in the background.
type Holder = &'static [u64];

const HOLDERS: &[Holder] =
    &[&[5500, 0], &[5500, 2600, 0], &[3300, 0], &[3100, 0], &[3100, 1550, 0], &[1700, 0], &[1500, 0], &[5950], &[4100]];

/// Holders of the shortest ttl, whose renewals come one after the other.
const RENEWED: &[Holder] = &[&[1950], &[1800], &[1650], &[1500], &[1350], &[1200], &[1050], &[900], &[750]];

/// Holders whose client reaches one member only, and a waiter for each lock whose client reaches the others. When
/// something happens to that member, each holder knows of its loss before the waiter has the lock.
fn known_before_the_next_grant(
    of_leader: bool,
    ttl: Duration,
    holders: &[Holder],
    fault: impl FnOnce(&mut Cluster, usize),
) -> (Cluster, usize) {
    let mut cluster = Cluster::start(3).unwrap();
    let leader = cluster.leader().unwrap();
    let at = if of_leader { leader } else { (leader + 1) % 3 };
    let (one, rest) = (addrs([&cluster.members[at]]), patient_client(addrs(others(&cluster, at))));
    let faulty = Instant::now() + ms(7000);
    let before = |time: &u64| std::thread::sleep((faulty - ms(*time)).saturating_duration_since(Instant::now()));
    let held: Vec<_> = std::thread::scope(|scope| {
        let hold = |(n, times): (usize, Holder)| {
            let (client, rest, before) = (client(&one), &rest, &before);
            scope.spawn(move || {
                let (key, (first, renewals)) = (format!("k{n}"), times.split_first().unwrap());
                before(first);
                let lock = client.lock(&key).ttl(ttl).wait(LONG).auto_renew(renewals.is_empty());
                let lease = lock.acquire().wait().unwrap();
                let waiter = waits(rest, &key, ttl);
                for time in renewals {
                    before(time);
                    lease.renew(None).wait().unwrap();
                }
                (lost_at(&lease), lease, waiter, client)
            })
        };
        let all: Vec<_> = holders.iter().copied().enumerate().map(hold).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    before(&0);
    let late = faulty.elapsed();
    fault(&mut cluster, at);
    let faulty = Instant::now();
    println!("the last holder renewed {late:?} before the fault");
    let mut wrong = Vec::new();
    for ((lost, lease, waiter, client), times) in held.into_iter().zip(holders) {
        let (granted, next) = waiter.join().unwrap();
        let lost = lost.lock().unwrap().map(|lost| lost - faulty);
        let granted = granted - faulty;
        println!("{times:?}: the holder knows after {lost:?}, and the next one has the lock after {granted:?}");
        if lost.is_none_or(|lost| lost >= granted) || lease.is_held() {
            wrong.push(times);
        }
        released(&next);
        drop(client);
    }
    assert!(wrong.is_empty(), "two holders at a time: {wrong:?}");
    (cluster, at)
}

#[test]
fn a_holder_whose_follower_dies_knows_before_the_next_grant() {
    known_before_the_next_grant(false, TTL, HOLDERS, |cluster, at| cluster.members[at].kill());
}

#[test]
fn a_holder_whose_follower_hangs_knows_before_the_next_grant() {
    let (cluster, at) = known_before_the_next_grant(false, TTL, HOLDERS, |cluster, at| cluster.members[at].pause());
    let next = acquired(&client(addrs(others(&cluster, at))), "k0");
    cluster.members[at].resume();
    until_it_serves(&cluster.members[at]);
    released(&next);
}

#[test]
fn a_holder_whose_follower_is_cut_off_knows_before_the_next_grant() {
    let (cluster, at) = known_before_the_next_grant(false, TTL, HOLDERS, |cluster, at| cluster.isolate(at));
    cluster.rejoin();
    until_it_serves(&cluster.members[at]);
}

#[test]
fn a_holder_whose_leader_hangs_knows_before_the_next_grant() {
    known_before_the_next_grant(true, TTL, HOLDERS, |cluster, at| cluster.members[at].pause());
}

#[test]
fn a_holder_whose_leader_is_cut_off_knows_before_the_next_grant() {
    let (cluster, at) = known_before_the_next_grant(true, SHORTEST, RENEWED, |cluster, at| cluster.isolate(at));
    cluster.rejoin();
    until_it_serves(&cluster.members[at]);
}

/// A request that was under way for long has reached the follower late, so the leader learns of it late.
#[test]
fn a_request_that_reaches_its_follower_late_counts_from_its_arrival() {
    let mut cluster = Cluster::start(3).unwrap();
    let at = (cluster.leader().unwrap() + 1) % 3;
    let proxy = Proxy::new(TestServer::addr(&cluster.members[at])).unwrap();
    let (client, rest) = (client(proxy.addr()), client(addrs(others(&cluster, at))));
    let until_report = || {
        let seen = cluster.reports(at);
        until("the next report", ms(1500), || cluster.reports(at) > seen);
        Instant::now()
    };
    let sleep_until = |time: Instant| std::thread::sleep(time.saturating_duration_since(Instant::now()));
    // The reports come every second.
    let first = until_report();
    sleep_until(first + ms(100));
    let lease = client.lock("k").ttl(TTL).wait(LONG).auto_renew(false).acquire().wait().unwrap();
    let (lost, waiter) = (lost_at(&lease), waits(&rest, "k", TTL));
    sleep_until(first + ms(2700));
    let report = until_report();
    sleep_until(report + ms(150));
    proxy.set(Direction::ToServer, Mode::Hold);
    let asked = Instant::now();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| lease.renew(None).wait().unwrap());
        until_report();
        proxy.both(Mode::Pass);
        late.join().unwrap();
    });
    sleep_until(asked + ms(1640));
    lease.renew(None).wait().unwrap();
    cluster.members[at].kill();
    let killed = Instant::now();
    let (granted, next) = waiter.join().unwrap();
    let lost = lost.lock().unwrap().map(|lost| lost - killed);
    println!("the holder knows after {lost:?}, the next one has the lock after {:?}", granted - killed);
    assert!(lost.is_some_and(|lost| lost < granted - killed), "two holders at a time");
    released(&next);
}

/// So many wait in this order when this is done to the ensemble; then all have the lock in turn.
fn outlived(waiters: usize, done: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(3).unwrap();
    let all = addrs(&cluster.members);
    let holder_of = client(&all);
    let holder = acquired(&holder_of, "k");
    let inside = AtomicUsize::new(0);
    let order = Mutex::new(vec![holder.fence()]);
    std::thread::scope(|scope| {
        for n in 0..waiters {
            let (client, inside, order) = (client(&all), &inside, &order);
            scope.spawn(move || {
                let lease = lock(&client, "k", ms(30_000)).wait(ENDS * 2).acquire().wait().unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                order.lock().unwrap().push(lease.fence());
                std::thread::sleep(ms(10));
                inside.fetch_sub(1, Ordering::SeqCst);
                released(&lease);
            });
            until_contenders(&cluster.members[1], "k", n + 2);
        }
        let queued = cluster.members[1].queue("k");
        let begun = Instant::now();
        done(&mut cluster);
        let leader = cluster.leader().unwrap();
        println!("there is a leader after {:?}", begun.elapsed());
        assert!(holder.is_held());
        assert_eq!(cluster.members[leader].queue("k"), queued, "nobody has lost its place");
        released(&holder);
    });
    let order = order.into_inner().unwrap();
    assert!(order.len() == waiters + 1 && order.is_sorted(), "not in the order of the queue: {order:?}");
    let leader = cluster.leader().unwrap();
    assert_eq!(cluster.members[leader].left_over(), [""; 0]);
}

#[test]
fn sixteen_waiters_outlive_their_leader() {
    outlived(16, |cluster| {
        let leader = cluster.leader().unwrap();
        cluster.members[leader].kill();
    });
}

#[test]
fn sixteen_waiters_outlive_a_rolling_restart() {
    outlived(16, |cluster| {
        for at in 0..3 {
            cluster.members[at].restart().unwrap();
            cluster.served().unwrap();
        }
    });
}

#[test]
fn a_majority_that_is_lost_ends_short_leases_before_the_next_grant_and_keeps_long_ones() {
    let mut cluster = Cluster::start(3).unwrap();
    let all = addrs(&cluster.members);
    let (holder, waiter) = (patient_client(&all), patient_client(&all));
    let (short, long) = (lock(&holder, "short", TTL).acquire().wait().unwrap(), acquired(&holder, "long"));
    let lost = lost_at(&short);
    let next = waits(&waiter, "short", TTL);
    let next_of_long = begin(&lock(&waiter, "long", ms(30_000)).wait(ENDS * 2));
    for key in ["short", "long"] {
        until_contenders(&cluster.members[0], key, 2);
    }
    let leader = cluster.leader().unwrap();
    for at in [leader, (leader + 1) % 3] {
        cluster.members[at].kill();
    }
    let killed = Instant::now();
    until("the short lease is lost", TTL, || !short.is_held());
    assert!(long.is_held());
    for at in [leader, (leader + 1) % 3] {
        cluster.members[at].restart().unwrap();
    }
    cluster.served().unwrap();
    println!("there is a majority again after {:?}", killed.elapsed());
    let (granted, next) = next.join().unwrap();
    let lost = lost.lock().unwrap().unwrap();
    println!("the loss was known after {:?}, the next grant came after {:?}", lost - killed, granted - killed);
    assert!(lost < granted);
    released(&next);
    assert!(long.is_held());
    released(&long);
    released(&next_of_long.join().unwrap().unwrap());
}

#[test]
fn holders_and_waiters_leave_a_member_that_is_cut_off() {
    for of_leader in [true, false] {
        let cluster = Cluster::start(3).unwrap();
        let leader = cluster.leader().unwrap();
        let at = if of_leader { leader } else { (leader + 1) % 3 };
        let all = addrs(&cluster.members);
        // Some of so many are connected to each member.
        let holders: Vec<_> = (0..9).map(|_| patient_client(&all)).collect();
        let waiters: Vec<_> = (0..9).map(|_| patient_client(&all)).collect();
        let key = |n: usize| format!("k{n}");
        let leases: Vec<_> = (0..9).map(|n| acquired(&holders[n], &key(n))).collect();
        let waiting: Vec<_> = (0..9).map(|n| begin(&lock(&waiters[n], &key(n), ms(30_000)).wait(ENDS * 2))).collect();
        (0..9).for_each(|n| until_contenders(&cluster.members[leader], &key(n), 2));
        cluster.isolate(at);
        until("it doesn't serve any more", ENDS, || cluster.members[at].mode().is_none());
        for ((n, lease), waiter) in leases.iter().enumerate().zip(waiting) {
            assert!(lease.is_held(), "{n}");
            released(lease);
            let next = waiter.join().unwrap().unwrap();
            assert!(next.fence() > lease.fence(), "{n}");
            released(&next);
        }
        cluster.rejoin();
        until_it_serves(&cluster.members[at]);
    }
}
