//! A server that is down: everybody who waits in this process is told at the same time, and nobody for nothing.

mod fake;

use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::{Client, Kind, Lease, Result, testing};
use fake::{Answer, Call, Fake};
use tokio::task::JoinHandle;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Begins an acquire; its result, and when it came.
fn begin(client: &Client, key: &str) -> JoinHandle<(Result<Lease>, Instant)> {
    let op = client.lock(key).acquire();
    tokio::spawn(async move { (op.await, Instant::now()) })
}

#[test]
fn all_who_wait_are_told_at_once() {
    testing::simulate(1, None, async {
        let (client, fake) = Fake::client();
        let keys = ["one", "one", "one", "one", "one", "a", "b", "c", "d"];
        keys.iter().for_each(|key| fake.hold(key));
        let mut waiting = Vec::new();
        for key in keys {
            waiting.push(begin(&client, key));
            clock::sleep(ms(1)).await;
        }
        clock::sleep(ms(1_000)).await;
        let begun = Instant::now();
        fake.set_down(true);
        for (waiting, key) in waiting.into_iter().zip(keys) {
            let (result, at) = waiting.await.unwrap();
            let error = result.unwrap_err();
            assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
            assert_eq!((error.key(), error.message()), (Some(key), "the server is down"));
            assert!(
                (ms(4_900)..ms(5_200)).contains(&(at - begun)),
                "a waiter for {key} was told after {:?}",
                at - begun
            );
        }
        fake.set_down(false);
        clock::sleep(ms(40_000)).await;
        assert!(keys.iter().all(|key| !testing::has_turn(&client, key)));
    });
}

/// A refusal of this process tells nothing about the server.
#[test]
fn what_the_backend_cannot_do_is_no_answer_of_the_server() {
    testing::simulate(1, None, async {
        let (client, fake) = Fake::client();
        fake.set_down(true);
        assert_eq!(client.list("").await.unwrap_err().kind(), Kind::Unsupported);
        let begun = Instant::now();
        let error = client.lock("k").acquire().await.unwrap_err();
        // A server that never answered is reported at once, after the time for a withdrawal.
        assert!(error.is_temporary() && Instant::now() - begun < ms(500), "{error:?}");
    });
}

/// The withdrawal takes longer than the caller waits.
#[test]
fn a_caller_that_cannot_wait_for_the_withdrawal_is_told_the_reason() {
    testing::simulate(1, None, async {
        let (client, fake) = Fake::client();
        client.lock("first").try_acquire().await.unwrap();
        fake.script(Call::Attempt, [Answer::Down]);
        fake.script(Call::Withdraw, [Answer::Never]);
        for error in [
            client.lock("k").try_acquire().await.unwrap_err(),
            client.lock("other").wait(ms(300)).acquire().await.unwrap_err(),
        ] {
            assert!(error.is_temporary() && error.message() == "the server is down", "{error:?}");
        }
    });
}

/// Behind a holder of this process, whose renewal is the first that has no answer.
#[test]
fn who_waits_behind_this_process_is_told_too() {
    testing::simulate(1, None, async {
        let (client, fake) = Fake::client();
        let holder = client.lock("k").ttl(ms(60_000)).acquire().await.unwrap();
        let waiting: Vec<_> = (0..5).map(|_| begin(&client, "k")).collect();
        clock::sleep(ms(100)).await;
        fake.set_down(true);
        let begun = Instant::now();
        assert!(holder.renew(None).await.is_err());
        for waiting in waiting {
            let (result, at) = waiting.await.unwrap();
            assert_eq!(result.unwrap_err().kind(), Kind::Backend);
            assert!((ms(4_900)..ms(5_200)).contains(&(at - begun)), "told after {:?}", at - begun);
        }
        assert!(holder.is_held());
    });
}

#[test]
fn an_answer_to_anybody_ends_it() {
    testing::simulate(2, None, async {
        let (client, fake) = Fake::client();
        let holder = client.lock("k").ttl(ms(3_600_000)).acquire().await.unwrap();
        fake.hold("other");
        let waiting = [begin(&client, "k"), begin(&client, "k"), begin(&client, "other")];
        clock::sleep(ms(100)).await;
        for _ in 0..10 {
            fake.set_down(true);
            clock::sleep(ms(3_000)).await;
            fake.set_down(false);
            clock::sleep(ms(1_500)).await;
        }
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        holder.release().await.unwrap();
        fake.free("other");
        let [first, second, other] = waiting;
        drop(first.await.unwrap().0.unwrap());
        second.await.unwrap().0.unwrap();
        other.await.unwrap().0.unwrap();
    });
}

/// One request that failed, and then nobody who asks: the server is asked whether it is there, and then no more.
#[test]
fn silence_is_no_outage() {
    testing::simulate(3, None, async {
        let (client, fake) = Fake::client();
        let holder = client.lock("k").ttl(ms(3_600_000)).acquire().await.unwrap();
        let waiting = begin(&client, "k");
        clock::sleep(ms(60_000)).await;
        assert!(!waiting.is_finished());
        assert_eq!(fake.count(Call::Ping), 0, "nothing has failed");
        fake.set_down(true);
        assert_eq!(client.lock("other").try_acquire().await.unwrap_err().kind(), Kind::Backend);
        fake.set_down(false);
        clock::sleep(ms(60_000)).await;
        assert!(!waiting.is_finished(), "one failure is no outage");
        let pings = fake.count(Call::Ping);
        assert!((1..10).contains(&pings), "{pings} pings, until the first answer");
        holder.release().await.unwrap();
        waiting.await.unwrap().0.unwrap();
    });
}

/// Whoever comes during an outage has all of the time that whoever was there before had.
#[test]
fn each_call_has_its_own_time() {
    testing::simulate(4, None, async {
        let (client, fake) = Fake::client();
        client.lock("warm").acquire().await.unwrap().release().await.unwrap();
        fake.set_down(true);
        assert_eq!(client.lock("k").acquire().await.unwrap_err().kind(), Kind::Backend);
        clock::sleep(ms(60_000)).await;
        let waiting = [begin(&client, "k"), begin(&client, "k"), begin(&client, "l")];
        clock::sleep(ms(4_000)).await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        fake.set_down(false);
        for waiting in waiting {
            waiting.await.unwrap().0.unwrap().release().await.unwrap();
        }
    });
}
