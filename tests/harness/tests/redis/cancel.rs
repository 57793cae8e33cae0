//! Acquires that are dropped or cancelled at every moment.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use dlock::{Client, Kind, Lease, Op, ReleaseOutcome};
use dlock_harness::proxy::Mode;

use crate::common::{
    LONG, SLACK, client, left_over, lock, median, ms, owner, proxy, queued, released, server, until, until_clean,
    until_queued,
};

const STEPS: u64 = 400;
const STEP: Duration = Duration::from_micros(5);
const KEYS: u64 = 20;

fn poll(op: &mut Op<Lease>) -> Poll<dlock::Result<Lease>> {
    Pin::new(op).poll(&mut Context::from_waker(Waker::noop()))
}

/// Begins it, and gives it up after this long: dropped, or cancelled and dropped.
fn give_up(client: &Client, key: &str, after: Duration, cancel: bool) {
    let mut op = lock(client, key, LONG * 3).acquire();
    let begun = Instant::now();
    if let Poll::Ready(result) = poll(&mut op) {
        return drop(result.unwrap());
    }
    while begun.elapsed() < after {
        std::hint::spin_loop();
    }
    if cancel {
        op.cancel();
    }
}

/// How long it takes to lock each of these keys now.
fn entries(client: &Client, keys: impl Iterator<Item = String>) -> Vec<Duration> {
    keys.map(|key| {
        let begun = Instant::now();
        released(&lock(client, &key, LONG).acquire().wait().unwrap());
        begun.elapsed()
    })
    .collect()
}

fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|n| format!("k{n}"))
}

fn told(what: &str, times: Vec<Duration>) {
    let most = times.iter().max().copied().unwrap_or_default();
    println!("after {STEPS} acquires given up {what}: the next comes in after {:?}, at most {most:?}", median(times));
    assert!(most < SLACK, "{most:?}");
}

#[test]
fn an_uncontended_acquire_given_up_at_any_moment_leaves_nothing() {
    let server = server();
    let (client, other) = (client(server.addr()), client(server.addr()));
    for cancel in [false, true] {
        for i in 0..STEPS {
            give_up(&client, &format!("k{}", i % KEYS), STEP * i as u32, cancel);
        }
        until_clean(&server, ms(2000));
        told(if cancel { "by a cancel" } else { "by a drop" }, entries(&other, keys()));
    }
}

#[test]
fn a_waiter_given_up_at_any_moment_leaves_the_queue() {
    let server = server();
    let (client, holder, other) = (client(server.addr()), client(server.addr()), client(server.addr()));
    let held: Vec<_> = keys().map(|key| lock(&holder, &key, LONG * 3).acquire().wait().unwrap()).collect();
    for cancel in [false, true] {
        for i in 0..STEPS {
            give_up(&client, &format!("k{}", i % KEYS), STEP * i as u32, cancel);
        }
        until("all queues are empty", ms(2000), || keys().all(|key| queued(&server, &key) == 0));
    }
    for lease in &held {
        assert_eq!(owner(&server, lease.key()), Some(lease.token()));
        released(lease);
    }
    assert_eq!(left_over(&server), Vec::<String>::new());
    told("while they waited", entries(&other, keys()));
}

/// A cancel that was answered at once is still being undone: it is in no way of this process's next try.
#[test]
fn a_try_waits_for_the_withdrawal_of_a_cancelled_acquire() {
    let server = server();
    let (a, proxy) = (client(server.addr()), proxy(&server));
    let b = client(proxy.addr());
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let op = lock(&b, "k", LONG).acquire();
    let canceller = op.canceller();
    let waiter = std::thread::spawn(move || op.wait());
    until_queued(&server, "k", 1);
    proxy.both(Mode::Delay(ms(40)));
    canceller.cancel();
    canceller.cancel();
    assert_eq!(waiter.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
    released(&holder);
    let lease = b.lock("k").try_acquire().wait().unwrap().expect("only its own withdrawal is in the way");
    proxy.both(Mode::Pass);
    released(&lease);
}

/// Polls it so often, then drops it.
fn polled(times: usize, client: &Client, hot: bool) {
    let mut op = lock(client, "k", LONG * 3).acquire();
    for _ in 0..times {
        // On this thread, or on the runtime.
        let result = if hot {
            match poll(&mut op) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            }
        } else {
            op.wait_for(Duration::ZERO)
        };
        if let Some(result) = result {
            drop(result.unwrap());
            break;
        }
    }
}

#[test]
fn an_acquire_dropped_after_any_number_of_polls_leaves_nothing() {
    let server = server();
    let (client, other) = (client(server.addr()), client(server.addr()));
    for hot in [true, false] {
        for times in 0..40 {
            polled(times, &client, hot);
        }
        until_clean(&server, ms(2000));
        let holder = lock(&other, "k", LONG * 3).acquire().wait().unwrap();
        for times in 0..40 {
            polled(times, &client, hot);
        }
        until("the queue is empty", ms(2000), || queued(&server, "k") == 0);
        assert_eq!(holder.release().wait().unwrap(), ReleaseOutcome::Released);
        released(&lock(&other, "k", LONG).acquire().wait().unwrap());
    }
}
