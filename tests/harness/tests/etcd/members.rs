//! Servers that are killed and started again, and clusters whose members come and go.

use dlock_harness::server::{Etcd, EtcdOptions};

use crate::common::{LONG, acquired, begin, client, cold, lock, ms, released, server, until, until_contenders};

fn cluster() -> Vec<Etcd> {
    Etcd::several(3, &EtcdOptions::new()).unwrap()
}

fn endpoints<'a>(members: impl IntoIterator<Item = &'a Etcd>) -> String {
    members.into_iter().map(|member| member.addr().to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_server_that_is_started_again_still_has_the_lock() {
    let mut server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let lease = acquired(&a, "k");
    let waiter = begin(&b.lock("k").wait(LONG * 3));
    until_contenders(&server, "k", 2);
    server.restart().unwrap();
    assert!(lease.is_held());
    lease.renew(None).wait().unwrap();
    until_contenders(&server, "k", 2);
    released(&lease);
    released(&waiter.join().unwrap().unwrap());
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

#[test]
fn a_paused_leader_keeps_nobody_for_long() {
    let members = cluster();
    let leader = members.iter().position(Etcd::leads).unwrap();
    // First to the one that will be paused.
    let order = [&members[leader], &members[(leader + 1) % 3], &members[(leader + 2) % 3]];
    let client = cold(&endpoints(order));
    let lease = acquired(&client, "k");
    members[leader].pause();
    let begun = std::time::Instant::now();
    lease.renew(None).wait().unwrap();
    println!("renewed {:?} after the leader was paused", begun.elapsed());
    released(&lease);
    released(&acquired(&client, "k"));
    members[leader].resume();
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
