//! What a fork does: the child has nothing of its parent's, and takes nothing away from it.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dlock::{Client, Kind, Lease, Op, Result, State, testing};
use tempfile::TempDir;

use crate::fake::{Answer, Call, Counts, Fake};
use crate::shared::client;
use crate::{alone, child, ms, succeeded, until};

fn both(test: impl Fn(&Client, &Client)) {
    let dir = TempDir::new().unwrap();
    let file = format!("file://{}", dir.path().display());
    let client = Client::connect(&file).unwrap();
    let other = Client::connect(&format!("{file}?prefix=other-")).unwrap();
    test(&client, &other);
}

#[test]
fn the_childs_try_is_busy() {
    if !alone("fork::the_childs_try_is_busy") {
        return;
    }
    both(|client, _| {
        let lease = client.lock("k").acquire().wait().unwrap();
        let lock = client.lock("k");
        succeeded(child(|| {
            lock.try_acquire().wait().unwrap().is_none()
                && client.lock("k").wait(ms(50)).acquire().wait().unwrap_err().kind() == Kind::Timeout
                && client.lock("other").try_acquire().wait().unwrap().is_some()
                && client.query().unwrap().is_empty()
        }));
        assert!(lease.is_held());
    });
}

#[test]
fn inherited_leases_are_nothing() {
    if !alone("fork::inherited_leases_are_nothing") {
        return;
    }
    both(|client, other| {
        let (kept, dropped) =
            (client.lock("kept").acquire().wait().unwrap(), client.lock("dropped").acquire().wait().unwrap());
        let memory = Client::connect("memory://fork").unwrap();
        let inner = memory.lock("k").acquire().wait().unwrap();
        let mut dropped = Some(dropped);
        let pid = child(|| {
            let error = kept.check().unwrap_err();
            drop(dropped.take());
            !kept.is_held()
                && kept.valid_for().is_zero()
                && error.kind() == Kind::NotHeld
                && kept.release().wait().unwrap_err().kind() == Kind::NotHeld
                && kept.renew(None).wait().is_err()
                // Another process's table is its own.
                && !inner.is_held()
                && memory.lock("k").try_acquire().wait().unwrap().is_some()
                && client.lock("kept").try_acquire().wait().unwrap().is_none()
                && client.lock("dropped").try_acquire().wait().unwrap().is_none()
                && other.lock("mine").acquire().wait().unwrap().is_held()
        });
        succeeded(pid);
        let dropped = dropped.unwrap();
        assert!(kept.is_held() && dropped.is_held() && inner.is_held());
        assert_eq!(kept.state(), State::Held);
        kept.release().wait().unwrap();
        assert!(client.lock("kept").try_acquire().wait().unwrap().is_some());
    });
}

/// With the runtime's thread running, waiters in the queue and a watchdog.
#[test]
fn forks_in_the_middle_of_things() {
    if !alone("fork::forks_in_the_middle_of_things") {
        return;
    }
    both(|client, _| {
        let lease = client.lock("k").acquire().wait().unwrap();
        let ends = client.lock("ends").ttl(ms(200)).auto_renew(false).acquire().wait().unwrap();
        let waiter = client.lock("k").acquire();
        let (tell, told) = std::sync::mpsc::channel();
        let _waiting = waiter.on_done(move |result| tell.send(result).unwrap());
        std::thread::sleep(ms(20));
        for _ in 0..20 {
            let pid = child(|| {
                let mine = client.lock("mine").acquire().wait().unwrap();
                let busy = client.lock("k").wait(ms(20)).acquire().wait().is_err();
                // A lock that ends has a watchdog, on a runtime of the child's.
                let short = client.lock("short").ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
                let lost = short.lost().wait().unwrap();
                mine.release().wait().is_ok() && busy && lost
            });
            succeeded(pid);
        }
        assert!(lease.is_held());
        assert!(ends.lost().wait().unwrap());
        lease.release().wait().unwrap();
        assert!(told.recv_timeout(ms(5_000)).unwrap().unwrap().is_held());
    });
}

/// An inherited descriptor would keep a dead parent's lock: the child that lives on must not.
#[test]
fn a_dead_parents_lock_is_free() {
    if !alone("fork::a_dead_parents_lock_is_free") {
        return;
    }
    both(|client, _| {
        let (mut alive, mut leave) = ([0; 2], [0; 2]);
        // SAFETY: both arrays have room for two descriptors.
        unsafe {
            assert_eq!(libc::pipe(alive.as_mut_ptr()), 0);
            assert_eq!(libc::pipe(leave.as_mut_ptr()), 0);
        }
        let parent = child(|| {
            let lease = client.lock("k").acquire().wait().unwrap();
            let _grandchild = child(|| {
                // SAFETY: reads and writes a byte of the stack; the descriptors are open.
                unsafe {
                    let mut byte = 0_u8;
                    libc::close(leave[1]);
                    libc::write(alive[1], (&raw const byte).cast(), 1);
                    libc::read(leave[0], (&raw mut byte).cast(), 1);
                }
                true
            });
            // Dies with its lock, as by kill -9: no destructor runs.
            lease.is_held()
        });
        succeeded(parent);
        // SAFETY: as above.
        unsafe {
            let mut byte = 0_u8;
            assert_eq!(libc::read(alive[0], (&raw mut byte).cast(), 1), 1, "the grandchild lives");
        }
        assert!(client.lock("k").wait(ms(1_000)).acquire().wait().is_ok());
        // SAFETY: lets the grandchild go.
        unsafe { libc::close(leave[1]) };
    });
}

/// What a child does with a call that its parent has under way; it says whether that came to what it should.
type Deed = fn(Op<Lease>) -> bool;

fn not_held<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == Kind::NotHeld && error.to_string().contains("fork"))
}

const DEEDS: &[(&str, Deed)] = &[
    ("drops it", |op| {
        drop(op);
        true
    }),
    ("cancels it", |op| {
        op.cancel();
        op.canceller().cancel();
        std::mem::forget(op);
        true
    }),
    ("waits", |op| not_held(op.wait())),
    ("waits for a while", |mut op| op.wait_for(ms(20)).is_some_and(not_held)),
    ("looks", |mut op| op.settled().is_some_and(not_held)),
    ("looks for an error", |mut op| op.settled_error().is_some_and(|error| not_held::<()>(Err(error)))),
    ("maps it", |op| not_held(op.map(|_| Ok(())).wait())),
    ("awaits it", |op| {
        let mut op = pin!(op);
        let poll = op.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match poll {
            Poll::Ready(result) => not_held(result),
            Poll::Pending => false,
        }
    }),
    ("waits inside a runtime", |mut op| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { op.wait_for(ms(20)) }).is_some_and(not_held)
    }),
    ("has a callback called", |op| {
        let (tell, told) = std::sync::mpsc::channel();
        op.on_done(move |result| tell.send(not_held(result)).unwrap());
        told.recv_timeout(ms(5_000)).unwrap()
    }),
];

/// Whether the call was polled by its waiting thread, or put onto the runtime, or is settled already.
fn under_way(client: &Client, fake: &Fake, way: usize) -> Op<Lease> {
    fake.script(Call::Attempt, [if way == 2 { Answer::Yes } else { Answer::No }]);
    let before = fake.count(Call::Attempt);
    let mut op = client.lock("k").acquire();
    match way {
        0 => until("pausing", || {
            op.wait_for(ms(2)).is_none() && fake.count(Call::Attempt) > before && fake.under_way(Call::Attempt) == 0
        }),
        1 => assert!(pin!(&mut op).poll(&mut Context::from_waker(Waker::noop())).is_pending()),
        _ => {
            assert!(pin!(&mut op).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            until("granted", || client.query().unwrap().iter().any(|(_, held)| *held));
        }
    }
    op
}

/// Withdrawals and releases since the last time.
fn ended(counts: &Counts) -> u32 {
    [Call::Withdraw, Call::Release].map(|call| counts[call as usize].swap(0, Ordering::SeqCst)).iter().sum()
}

#[test]
fn a_call_belongs_to_the_process_that_made_it() {
    if !alone("fork::a_call_belongs_to_the_process_that_made_it") {
        return;
    }
    let (client, fake, counts) = client();
    for way in 0..3 {
        for (what, deed) in DEEDS {
            let mut op = Some(under_way(&client, &fake, way));
            let pid = child(|| {
                let fine = deed(op.take().unwrap());
                // A runtime of the child's has run: whatever the deed put onto it has begun, too.
                client.ping().wait().unwrap();
                std::thread::sleep(ms(20));
                fine
            });
            succeeded(pid);
            let mut op = op.unwrap();
            assert_eq!(ended(counts), 0, "the child {what} ({way}): the claim was withdrawn");
            assert!(testing::has_turn(&client, "k"));
            fake.script(Call::Attempt, [Answer::Yes]);
            let lease = op.wait_for(ms(10_000)).expect("the parent's call goes on").unwrap();
            assert!(lease.is_held(), "the child {what} ({way})");
            drop(lease);
            until("released", || ended(counts) > 0 && !testing::has_turn(&client, "k"));
        }
    }
}

/// A child that closes its copy of a client, or waits by it, meets nobody of its parent's there.
#[test]
fn a_client_that_waits_is_closed_by_itself() {
    if !alone("fork::a_client_that_waits_is_closed_by_itself") {
        return;
    }
    let (client, fake, _) = client();
    let mut op = client.lock("k").acquire();
    assert!(op.wait_for(ms(20)).is_none());
    succeeded(child(|| {
        let held = Client::open(client.config().clone()).unwrap().lock("other").acquire().wait().unwrap();
        let mut mine = client.lock("other").acquire();
        let waits = mine.wait_for(ms(20)).is_none();
        client.close(Duration::ZERO).wait().unwrap();
        let closed = mine.wait().unwrap_err().kind() == Kind::Invalid;
        waits && closed && client.is_closed() && held.is_held()
    }));
    assert!(!client.is_closed() && op.wait_for(ms(20)).is_none());
    assert_eq!(fake.count(Call::Release), 0);
}
