//! Servers that are killed and started again, and clusters whose members come and go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dlock_harness::backends::TestServer;
use dlock_harness::backends::etcd::{Cluster, Etcd, EtcdOptions};

use crate::common::{LONG, acquired, begin, cold, contenders, lock, ms, released, server, until, until_contenders};

fn cluster() -> Vec<Etcd> {
    Etcd::several(3, &EtcdOptions::new()).unwrap()
}

fn endpoints<'a>(members: impl IntoIterator<Item = &'a Etcd>) -> String {
    members.into_iter().map(|member| member.addr().to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn an_endpoint_that_is_down_is_passed_over() {
    let server = server();
    let client = cold(&format!("127.0.0.1:1,{}", server.addr()));
    released(&acquired(&client, "k"));
    let client = cold(&format!("{},127.0.0.1:1", server.addr()));
    released(&acquired(&client, "k"));
}

#[test]
fn locks_outlive_the_death_of_each_member() {
    let mut members = cluster();
    let (a, b) = (cold(&endpoints(&members)), cold(&endpoints(&members)));
    let mut lease = acquired(&a, "k");
    for at in 0..3 {
        let waiter = begin(&lock(&b, "k", ms(30_000)).wait(LONG * 3));
        until_contenders(&members[(at + 1) % 3], "k", 2);
        println!("member {at} is killed{}", if members[at].leads() { ", which leads" } else { "" });
        members[at].kill();
        assert!(lease.is_held());
        released(&lease);
        let next = waiter.join().unwrap().unwrap();
        assert!(next.fence() > lease.fence());
        released(&next);
        members[at].restart().unwrap();
        lease = acquired(&a, "k");
    }
    released(&lease);
}

/// So many wait in this order when this is done to the leader, to which all are connected; then all have it in turn.
fn outlived(waiters: usize, done: impl FnOnce(&mut [Etcd], usize)) {
    let mut members = cluster();
    let leader = members.iter().position(Etcd::leads).unwrap();
    members.swap(0, leader);
    let all = endpoints(&members);
    let holder_of = cold(&all);
    let holder = acquired(&holder_of, "k");
    let inside = AtomicUsize::new(0);
    let order = Mutex::new(vec![holder.fence()]);
    std::thread::scope(|scope| {
        for n in 0..waiters {
            let (client, inside, order) = (cold(&all), &inside, &order);
            scope.spawn(move || {
                let lease = lock(&client, "k", ms(30_000)).wait(LONG * 3).acquire().wait().unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                order.lock().unwrap().push(lease.fence());
                std::thread::sleep(ms(10));
                inside.fetch_sub(1, Ordering::SeqCst);
                released(&lease);
            });
            until_contenders(&members[1], "k", n + 2);
        }
        let queued = contenders(&members[1], "k");
        done(&mut members, 0);
        assert!(holder.is_held());
        assert_eq!(contenders(&members[1], "k"), queued, "nobody has lost its place");
        released(&holder);
    });
    let order = order.into_inner().unwrap();
    assert!(order.len() == waiters + 1 && order.is_sorted(), "not in the order of the queue: {order:?}");
    assert!(contenders(&members[1], "k").is_empty());
}

#[test]
fn sixteen_waiters_outlive_their_leader() {
    outlived(16, |members, leader| members[leader].kill());
}

#[test]
fn sixteen_waiters_outlive_a_change_of_the_leader() {
    outlived(16, |members, leader| {
        members[leader].ctl(&["move-leader", &members[1].id()]);
        assert!(!members[leader].leads());
    });
}

#[test]
fn a_paused_leader_keeps_nobody_for_long() {
    let members = cluster();
    let leader = members.iter().position(Etcd::leads).unwrap();
    // First to the one that will be paused.
    let order = [&members[leader], &members[(leader + 1) % 3], &members[(leader + 2) % 3]];
    let client = cold(&endpoints(order));
    let lease = acquired(&client, "k");
    members[leader].pause();
    let begun = Instant::now();
    lease.renew(None).wait().unwrap();
    println!("renewed {:?} after the leader was paused", begun.elapsed());
    released(&lease);
    released(&acquired(&client, "k"));
    members[leader].resume();
}

#[test]
fn a_leader_cut_off_from_the_others_is_left_for_their_new_one() {
    let cluster = Cluster::start(3, &EtcdOptions::new()).unwrap();
    let old = cluster.leader().unwrap();
    // First to the one that will be cut off.
    let all = endpoints([0, 1, 2].map(|n| &cluster.members[(old + n) % 3]));
    let (a, b) = (cold(&all), cold(&all));
    let lease = acquired(&a, "k");
    let waiter = begin(&lock(&b, "k", ms(30_000)).wait(LONG * 3));
    until_contenders(&cluster.members[old], "k", 2);
    cluster.isolate(old);
    let others = || cluster.members.iter().enumerate().filter(|(n, _)| *n != old);
    until("the others have a leader", LONG, || others().any(|(_, member)| member.leads()));
    until("it has none", LONG, || cluster.members[old].figure("etcd_server_has_leader") < 0.5);
    assert!(lease.is_held());
    released(&lease);
    let next = waiter.join().unwrap().unwrap();
    assert!(next.fence() > lease.fence());
    cluster.rejoin();
    assert!(next.is_held());
    released(&next);
    until("all have the same leader", LONG, || cluster.members[old].figure("etcd_server_has_leader") > 0.5);
    released(&acquired(&a, "k"));
}

#[test]
fn a_member_without_a_majority_is_left_for_one_that_has_it() {
    let members = cluster();
    let client = cold(&endpoints(&members));
    let lease = acquired(&client, "k");
    // Two paused: nobody has a majority.
    members[1].pause();
    members[2].pause();
    assert!(client.lock("k2").wait(ms(500)).acquire().wait().is_err());
    members[1].resume();
    until("a lock can be had again", LONG * 2, || client.lock("k2").wait(ms(1000)).acquire().wait().is_ok());
    assert!(lease.is_held());
    released(&lease);
    members[2].resume();
}
