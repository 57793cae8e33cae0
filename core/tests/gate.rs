//! The local queue: first in, first out, and those who leave it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlock::clock;
use dlock::{Client, Kind, testing};
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
