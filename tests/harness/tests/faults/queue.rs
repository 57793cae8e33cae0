//! Waiters that give up, leases that are dropped, and the order of those that wait.

use std::thread::JoinHandle;
use std::time::Instant;

use dlock::contract::{Admission, admit};
use dlock::{Canceller, Client, Kind, Lease, Mode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{LATE, LONG, On, SLACK, acquired, lock, ms, released, until, until_contenders};

scenarios! {
    a_waiter_whose_time_is_up_leaves_the_queue;
    a_waiter_that_is_cancelled_leaves_the_queue;
    a_lease_that_is_dropped_is_given_back;
    those_who_come_and_go_hold_by_the_rule_of_admission needs Names;
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

/// A claim of the model, and the call that it stands for.
struct Contending {
    label: String,
    mode: Mode,
    holds: bool,
    canceller: Canceller,
    call: Option<JoinHandle<dlock::Result<Lease>>>,
    lease: Option<Lease>,
}

/// Admits by the rule whom it lets in, first come first served.
fn apply_rule(queue: &mut [Contending]) {
    for place in 0..queue.len() {
        let (ahead, rest) = queue.split_at_mut(place);
        let own = &mut rest[0];
        own.holds = own.holds || admit(own.mode, ahead.iter().map(|other| other.mode)) == Admission::Now;
    }
}

/// Plays a series: each number is a client that comes, if its claim is not in the queue yet, and goes otherwise.
fn play(clients: &[Client], key: &str, series: &[usize]) {
    let mut queue: Vec<Contending> = Vec::new();
    let close = (0..clients.len()).filter(|at| series.iter().filter(|step| *step == at).count() % 2 == 1);
    for at in series.iter().copied().chain(close) {
        let label = format!("client {at}");
        match queue.iter().position(|claim| claim.label == label) {
            None => {
                let lock = lock(&clients[at], key, LONG * 3).label(&label);
                let (mode, acquiring) = (lock.options().mode, lock.acquire());
                let canceller = acquiring.canceller();
                let call = Some(std::thread::spawn(move || acquiring.wait()));
                queue.push(Contending { label, mode, holds: false, canceller, call, lease: None });
            }
            Some(place) => {
                let gone = queue.remove(place);
                match (gone.lease, gone.call) {
                    (Some(lease), _) => released(&lease),
                    (None, Some(call)) => {
                        gone.canceller.cancel();
                        assert_eq!(call.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
                    }
                    (None, None) => unreachable!("it waits or holds"),
                }
            }
        }
        apply_rule(&mut queue);
        for claim in &mut queue {
            if let Some(call) = claim.call.take_if(|_| claim.holds) {
                claim.lease = Some(call.join().unwrap().unwrap());
            }
        }
        let expected: Vec<_> = queue.iter().map(|claim| (Some(claim.label.clone()), claim.holds)).collect();
        let seen = || -> Vec<_> {
            let contenders = clients[0].contenders(key).wait().unwrap();
            contenders.into_iter().map(|seen| (seen.label, seen.held)).collect()
        };
        until(&format!("the queue is {expected:?}"), LONG, || seen() == expected);
    }
}

/// The server's queue is compared with the rule that memory and the queue of this process ask.
fn those_who_come_and_go_hold_by_the_rule_of_admission(on: On) {
    let server = on.server();
    let clients: Vec<_> = (0..4).map(|_| on.client(server.addr())).collect();
    let series = prop::collection::vec(0..clients.len(), 1..16);
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let play_one = |series: Vec<usize>| {
        // Whatever an earlier series left is in no way of this one.
        let key = format!("order-{}", dlock_harness::scenario::next());
        play(&clients, &key, &series);
        Ok(())
    };
    TestRunner::new(config).run(&series, play_one).unwrap();
}
