//! What is left of a wait when its caller leaves: nothing.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use dlock::{Lease, Op, runtime};

use crate::fake::Call;
use crate::shared::{client, granting};
use crate::{alone, ms, until};

#[test]
fn whoever_leaves_a_wait_leaves_nothing() {
    if !alone("waits::whoever_leaves_a_wait_leaves_nothing") {
        return;
    }
    let (client, _) = granting();
    let lease = client.lock("k").acquire().wait().unwrap();
    let tasks = || runtime::handle().unwrap().metrics().num_alive_tasks();
    let before = tasks();
    let waits: [fn(&Lease) -> Op<bool>; 3] =
        [Lease::lost, |lease| lease.lost_within(Some(ms(3_600_000))), |lease| lease.lost().map(Ok)];
    let leave: [fn(Op<bool>); 5] = [
        drop,
        // Looked at once by its thread; waited for; awaited; with a callback, and cancelled.
        |mut op| assert!(op.wait_for(Duration::ZERO).is_none()),
        |mut op| assert!(op.wait_for(Duration::from_nanos(1)).is_none()),
        |op| assert!(pin!(op).poll(&mut Context::from_waker(Waker::noop())).is_pending()),
        |op| op.on_done(drop).cancel(),
    ];
    for _ in 0..20 {
        for wait in waits {
            for leave in leave {
                leave(wait(&lease));
            }
        }
    }
    until("the tasks of the waits have ended", || tasks() <= before);
    assert!(lease.is_held());
}

/// A call that may hold something is brought to its end all the same, and then is gone.
#[test]
fn whoever_leaves_an_acquire_leaves_nothing_for_long() {
    if !alone("waits::whoever_leaves_an_acquire_leaves_nothing_for_long") {
        return;
    }
    let (client, fake, _) = client();
    client.ping().wait().unwrap();
    let tasks = || runtime::handle().unwrap().metrics().num_alive_tasks();
    let before = tasks();
    for i in 0..20 {
        let mut op = client.lock(&format!("k{i}")).acquire();
        assert!(op.wait_for(ms(2)).is_none());
    }
    until("they were withdrawn", || fake.count(Call::Withdraw) == 20);
    until("their tasks have ended", || tasks() <= before);
}
