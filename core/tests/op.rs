//! A running call: awaited, waited for, watched by a callback, cancelled, dropped, panicking.

mod fake;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use dlock::{Client, Kind, Op, testing};
use fake::{Answer, Call, Fake};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn client(name: &str) -> Client {
    Client::connect(&format!("memory://op-{name}")).unwrap()
}

#[test]
fn waits_on_a_plain_thread() {
    let client = client("wait");
    let lease = client.lock("k").acquire().wait().unwrap();
    let begun = Instant::now();
    let error = client.lock("k").wait(ms(50)).acquire().wait().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(begun.elapsed() >= ms(50));
    lease.release().wait().unwrap();
}

#[test]
fn waits_in_slices() {
    let client = client("slices");
    let lease = client.lock("k").acquire().wait().unwrap();
    let mut op = client.lock("k").acquire();
    for _ in 0..3 {
        assert!(op.wait_for(ms(5)).is_none());
    }
    assert!(op.settled().is_none());
    lease.release().wait().unwrap();
    let second = op.wait_for(ms(5_000)).expect("free by now").unwrap();
    assert!(second.is_held());
    assert_eq!(op.wait().unwrap_err().kind(), Kind::Internal, "the result can be taken once");
}

#[test]
fn is_awaited_in_any_executor() {
    let client = client("await");
    let lease = client.lock("k").acquire().wait().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let second = tokio::spawn(client.lock("k").acquire());
        let third = tokio::spawn(client.lock("k").acquire());
        tokio::time::sleep(ms(20)).await;
        assert!(!second.is_finished() && !third.is_finished());
        lease.release().await.unwrap();
        let second = second.await.unwrap().unwrap();
        assert!(second.is_held());
        drop(second);
        assert!(third.await.unwrap().unwrap().is_held());
    });
}

#[test]
fn waits_as_a_thread_inside_a_foreign_runtime() {
    let client = client("foreign");
    let lease = client.lock("k").acquire().wait().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut op = client.lock("k").acquire();
        assert!(op.wait_for(ms(20)).is_none());
        drop(lease);
        assert!(op.wait().unwrap().is_held());
    });
}

#[test]
fn tells_a_callback_once() {
    let client = client("callback");
    let (tell, told) = channel();
    let send = tell.clone();
    let at_once = client.lock("k").acquire().on_done(move |result| send.send(result).unwrap());
    let lease = told.recv().unwrap().unwrap();
    at_once.cancel();
    let later = client.lock("k").acquire().on_done(move |result| tell.send(result).unwrap());
    assert!(told.recv_timeout(ms(20)).is_err());
    later.cancel();
    assert_eq!(told.recv().unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert!(told.recv().is_err(), "called once, then dropped");
    assert!(lease.is_held());
}

#[test]
fn a_cancelled_call_settles_soon_and_leaves_nothing() {
    let client = client("cancel");
    let lease = client.lock("k").acquire().wait().unwrap();
    let mut op = client.lock("k").acquire();
    assert!(op.wait_for(ms(5)).is_none());
    op.cancel();
    let begun = Instant::now();
    assert_eq!(op.wait().unwrap_err().kind(), Kind::Cancelled);
    assert!(begun.elapsed() < ms(2_000));
    drop(lease);
    assert!(client.lock("k").try_acquire().wait().unwrap().is_some());
}

#[test]
fn dropping_cancels() {
    let client = client("drop");
    let lease = client.lock("k").acquire().wait().unwrap();
    for polled in [false, true] {
        let mut op = client.lock("k").acquire();
        if polled {
            assert!(op.wait_for(ms(5)).is_none());
        }
        drop(op);
    }
    let end = Instant::now() + ms(5_000);
    while client.contenders("k").wait().unwrap().len() > 1 {
        assert!(Instant::now() < end, "a dropped call still waits");
    }
    drop(lease);
    let lease = client.lock("k").try_acquire().wait().unwrap();
    assert!(lease.is_some());
}

/// What a dropped call had obtained already is given back.
#[test]
fn a_result_nobody_takes_is_given_back() {
    let client = client("untaken");
    drop(client.lock("k").acquire());
    assert!(client.lock("k").try_acquire().wait().unwrap().is_some());
}

/// The result of one call becomes that of another, settled or not.
#[test]
fn maps_results() {
    assert_eq!(Op::ready(Ok(2)).map(|n| Ok(n * 2)).wait().unwrap(), 4);
    let client = client("map");
    let lease = client.lock("k").acquire().wait().unwrap();
    let failed = client.lock("k").wait(ms(5)).acquire().map(|_| Ok(()));
    assert_eq!(failed.wait().unwrap_err().kind(), Kind::Timeout);
    let recovered = client.lock("k").wait(ms(5)).acquire().recover(|result| Ok(result.is_err()));
    assert!(recovered.wait().unwrap());
    let mut op = client.lock("k").acquire().map(|lease| Ok(lease.fence()));
    assert!(op.wait_for(ms(5)).is_none());
    op.cancel();
    assert_eq!(op.wait().unwrap_err().kind(), Kind::Cancelled, "the cancel reaches the call behind it");
    drop(lease);
}

#[test]
fn a_panic_is_an_error_of_its_call() {
    let (client, fake) = Fake::client();
    fake.script_all(Answer::Panic { at_once: false });
    fake.script(Call::Withdraw, [Answer::Yes]);
    fake.script(Call::Ping, [Answer::Panic { at_once: true }]);
    for _ in 0..2 {
        let error = client.lock("k").acquire().wait().unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.to_string().contains("no Attempt"), "{error}");
    }
    assert_eq!(client.contenders("k").wait().unwrap_err().kind(), Kind::Internal);
    assert_eq!(client.ping().wait().unwrap_err().kind(), Kind::Internal);
}

/// A backend that never answers, whose contender can't withdraw either.
#[test]
fn answers_in_time_whatever_the_backend_does() {
    for in_attempt in [false, true] {
        testing::simulate(1, None, async {
            let (client, fake) = Fake::client();
            fake.script_all(Answer::Never);
            if !in_attempt {
                fake.script(Call::Attempt, [Answer::No]);
            }
            let begun = tokio::time::Instant::now();
            let error = client.lock("deadline").wait(ms(300)).acquire().await.unwrap_err();
            // Only what somebody said is told: no word of a lock that is busy from a backend that never answered.
            assert_eq!(error.kind(), if in_attempt { Kind::Backend } else { Kind::Timeout });
            assert!(begun.elapsed() <= ms(401), "{:?}", begun.elapsed());

            let op = client.lock("cancel").acquire();
            let canceller = op.canceller();
            let waiting = tokio::spawn(op);
            tokio::time::sleep(ms(50)).await;
            canceller.cancel();
            let begun = tokio::time::Instant::now();
            assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
            assert!(begun.elapsed() <= ms(251), "{:?}", begun.elapsed());

            let op = client.lock("twice").acquire();
            let canceller = op.canceller();
            let waiting = tokio::spawn(op);
            tokio::time::sleep(ms(50)).await;
            canceller.cancel();
            canceller.cancel();
            let begun = tokio::time::Instant::now();
            assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
            assert!(begun.elapsed() <= ms(1), "{:?}", begun.elapsed());
            // What is unfinished keeps the turn: nobody contends beside it.
            assert!(testing::has_turn(&client, "twice"));
        });
    }
}

/// A call that was only made, and never awaited, does nothing.
#[test]
fn what_is_not_polled_doesnt_begin() {
    let client = client("cold");
    let lease = client.lock("k").acquire().wait().unwrap();
    let op = client.lock("k").acquire();
    assert_eq!(client.contenders("k").wait().unwrap().len(), 1);
    drop(op);
    drop(lease);
}
