//! The local queue: first in, first out, and those who leave it.

mod fake;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock::clock::{self, Instant};
use dlock::{Client, Kind, testing};
use fake::{Call, Fake};
use tempfile::TempDir;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn first_in_first_out() {
    let dir = TempDir::new().unwrap();
    for url in ["memory://gate".to_owned(), format!("file://{}", dir.path().display())] {
        testing::simulate(1, None, async {
            let client = Client::connect(&url).unwrap();
            let holder = client.lock("k").acquire().await.unwrap();
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut waiters = Vec::new();
            for i in 0..20 {
                let (lock, order) = (client.lock("k"), order.clone());
                waiters.push(tokio::spawn(async move {
                    let lease = lock.acquire().await.unwrap();
                    order.lock().unwrap().push((i, lease.fence().unwrap()));
                    clock::sleep(ms(1)).await;
                    lease.release().await.unwrap();
                }));
                clock::sleep(ms(1)).await;
            }
            holder.release().await.unwrap();
            for waiter in waiters {
                waiter.await.unwrap();
            }
            let order = order.lock().unwrap();
            assert!(order.iter().map(|(i, _)| *i).eq(0..20), "{order:?}");
            assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1), "{order:?}");
            assert!(!testing::has_turn(&client, "k"));
        });
    }
}

/// A wish to withdraw counts from that moment on, and not only once its call has been driven again.
#[test]
fn who_wishes_to_withdraw_is_passed_over() {
    testing::simulate(3, None, async {
        let client = Client::connect("memory://wishes").unwrap();
        let holder = client.lock("k").acquire().await.unwrap();
        let op = client.lock("k").acquire();
        let canceller = op.canceller();
        let waiting = tokio::spawn(op);
        clock::sleep(ms(10)).await;
        assert_eq!(client.query().unwrap().len(), 2);
        canceller.cancel();
        assert_eq!(client.query().unwrap().len(), 1);
        drop(holder);
        // Nothing was awaited since: the waiter hasn't seen it yet.
        assert!(!testing::has_turn(&client, "k"));
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
        assert!(client.lock("k").try_acquire().await.unwrap().is_some());
    });
}

/// Those who give up, by deadline, cancel or drop, stand in nobody's way.
#[test]
fn leaving_the_queue() {
    testing::simulate(2, None, async {
        let client = Client::connect("memory://leaving").unwrap();
        let holder = client.lock("k").acquire().await.unwrap();
        let late = tokio::spawn(client.lock("k").wait(ms(30)).acquire());
        let op = client.lock("k").acquire();
        let canceller = op.canceller();
        let cancelled = tokio::spawn(op);
        let dropped = tokio::spawn(client.lock("k").acquire());
        let stays = tokio::spawn(client.lock("k").acquire());
        clock::sleep(ms(10)).await;
        assert_eq!(client.query().unwrap().iter().filter(|(_, held)| !held).count(), 4);
        canceller.cancel();
        dropped.abort();
        assert_eq!(cancelled.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(late.await.unwrap().unwrap_err().kind(), Kind::Timeout);
        assert_eq!(client.query().unwrap().iter().filter(|(_, held)| !held).count(), 1);
        holder.release().await.unwrap();
        let lease = stays.await.unwrap().unwrap();
        assert_eq!(client.query().unwrap(), [("k".to_owned(), true)]);
        drop(lease);
        assert!(client.query().unwrap().is_empty());
        assert!(!testing::has_turn(&client, "k"));
    });
}

/// A turn that comes in the same moment as the cancel is passed on.
#[test]
fn cancelled_when_its_turn_comes() {
    testing::simulate(3, None, async {
        let client = Client::connect("memory://crossing").unwrap();
        for cancel_first in [true, false] {
            let holder = client.lock("k").acquire().await.unwrap();
            let op = client.lock("k").acquire();
            let canceller = op.canceller();
            let crossing = tokio::spawn(op);
            let next = tokio::spawn(client.lock("k").acquire());
            clock::sleep(ms(5)).await;
            if cancel_first {
                canceller.cancel();
            }
            let released = holder.release();
            canceller.cancel();
            released.await.unwrap();
            drop(crossing.await.unwrap());
            assert!(next.await.unwrap().unwrap().is_held());
        }
        clock::sleep(ms(5)).await;
        assert!(!testing::has_turn(&client, "k"));
    });
}

#[test]
fn keys_dont_wait_for_one_another() {
    testing::simulate(4, None, async {
        let client = Client::connect("memory://keys").unwrap();
        let mut leases = Vec::new();
        for i in 0..100 {
            leases.push(client.lock(&format!("k{i}")).try_acquire().await.unwrap().unwrap());
        }
        assert_eq!(client.query().unwrap().len(), 100);
        client.close(ms(100)).await.unwrap();
        assert!(leases.iter().all(|lease| !lease.is_held()));
        assert_eq!(client.lock("k1").acquire().await.unwrap_err().kind(), Kind::Invalid);
    });
}

/// A call keeps a place from its first poll on: one that was made and put aside is in nobody's way.
#[test]
fn a_call_that_nobody_polls_keeps_nothing() {
    testing::simulate(5, None, async {
        // Two clients of one table, each with a queue of its own.
        let connect = |seconds| Client::connect(&format!("memory://aside?connect_timeout={seconds}s")).unwrap();
        let (a, b) = (connect(5), connect(6));
        let (c, _fake) = Fake::client();
        let holder = a.lock("k").acquire().await.unwrap();
        let aside = (b.lock("k").acquire(), c.lock("k").try_acquire(), c.lock("l").retry((3, ms(10))).acquire());
        assert!(!testing::has_turn(&b, "k") && !testing::has_turn(&c, "k") && !testing::has_turn(&c, "l"));
        let waiting = tokio::spawn(b.lock("k").wait(ms(5_000)).acquire());
        clock::sleep(ms(10)).await;
        holder.release().await.unwrap();
        waiting.await.unwrap().expect("nobody is before it").release().await.unwrap();
        for key in ["k", "l"] {
            c.lock(key).wait(ms(100)).acquire().await.unwrap().release().await.unwrap();
        }
        // Polled at last, they have what there is.
        aside.0.await.unwrap();
        assert!(aside.1.await.unwrap().is_some());
        aside.2.await.unwrap();
    });
}

/// A call that was answered, and whose withdrawal or release is still under way, is in no way of a try.
#[test]
fn a_try_waits_for_what_its_own_process_has_ended() {
    testing::simulate(6, None, async {
        let (client, fake) = Fake::client();
        let lock = client.lock("k");
        fake.takes(Call::Withdraw, ms(100));
        fake.takes(Call::Release, ms(100));
        for round in 0..3 {
            fake.hold("k");
            let op = lock.acquire();
            let canceller = op.canceller();
            let waiting = tokio::spawn(op);
            clock::sleep(ms(10)).await;
            if round == 0 {
                waiting.abort();
            } else {
                canceller.cancel();
                canceller.cancel();
            }
            let _ = waiting.await;
            fake.free("k");
            assert!(testing::has_turn(&client, "k"), "it is still being undone");
            let lease = match round {
                2 => lock.clone().retry((1, ms(1))).acquire().await.unwrap(),
                _ => lock.try_acquire().await.unwrap().expect("only its own withdrawal is in the way"),
            };
            drop(lease);
            let lease = lock.try_acquire().await.unwrap().expect("only its own release is in the way");
            lease.release().await.unwrap();
        }
    });
}

/// And not for longer than that, nor behind anybody else.
#[test]
fn a_try_waits_for_nothing_else() {
    testing::simulate(7, None, async {
        let (client, fake) = Fake::client();
        let lock = client.lock("k");
        let tried = async || {
            let begun = Instant::now();
            assert!(lock.try_acquire().await.unwrap().is_none());
            Instant::now() - begun
        };
        let holder = lock.acquire().await.unwrap();
        assert_eq!(tried().await, Duration::ZERO, "held");
        fake.takes(Call::Withdraw, ms(60_000));
        fake.takes(Call::Release, ms(60_000));
        drop(holder);
        let limited = tried().await;
        assert!((ms(250)..=ms(252)).contains(&limited), "{limited:?}");
        let behind = tokio::spawn(lock.acquire());
        clock::sleep(ms(10)).await;
        assert_eq!(tried().await, Duration::ZERO, "somebody waits for it");
        behind.abort();
        assert!(behind.await.is_err());
        let op = lock.try_acquire();
        let canceller = op.canceller();
        let waiting = tokio::spawn(op);
        clock::sleep(ms(10)).await;
        canceller.cancel();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    });
}

/// However many give up in one moment, the backend is asked once who holds the lock.
#[test]
fn all_whose_time_is_up_share_one_look() {
    testing::simulate(8, None, async {
        let (client, fake) = Fake::client();
        fake.hold("k");
        for looks in 1..=2 {
            let lock = client.lock("k").wait(ms(1_000));
            let waiting: Vec<_> = (0..2_000).map(|_| tokio::spawn(lock.acquire())).collect();
            for waiting in waiting {
                let error = waiting.await.unwrap().unwrap_err();
                assert_eq!(error.kind(), Kind::Timeout);
                assert!(error.message().ends_with("held by process 4711"), "{error}");
            }
            assert_eq!(fake.count(Call::Contenders), looks);
        }
    });
}
