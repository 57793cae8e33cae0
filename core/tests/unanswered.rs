//! A backend that never answers: every call comes back all the same.

mod fake;

use std::time::Duration;

use dlock::clock::Instant;
use dlock::{Client, Kind, ReleaseOutcome};
use fake::{Answer, Call, Fake};

/// A client of a backend that grants, if it is told to, and answers nothing else.
fn client(grants: bool) -> Client {
    let (client, fake) = Fake::client();
    fake.script_all(Answer::Never);
    if grants {
        fake.script(Call::Attempt, [Answer::Yes]);
    }
    client
}

/// Awaits a call that must fail with this kind, and within this time.
async fn ends<T: Send + std::fmt::Debug + 'static>(call: dlock::Op<T>, kind: Kind, limit: Duration) {
    let begun = Instant::now();
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(Instant::now() - begun <= limit, "{error} came after {:?}", Instant::now() - begun);
}

#[test]
fn every_call_comes_back() {
    let second = Duration::from_secs(1);
    dlock::testing::simulate(1, None, async move {
        let client = client(false);
        let lock = || client.lock("k");
        let other = || client.lock("other");
        // The deadline, and a tenth of a second. Nobody has said that the lock is busy.
        ends(lock().wait(second).acquire(), Kind::Backend, second + Duration::from_millis(101)).await;
        // What is left behind keeps the turn: the next one of this process doesn't contend beside it.
        ends(lock().wait(second).acquire(), Kind::Timeout, second + Duration::from_millis(101)).await;
        // No deadline: the outage itself.
        ends(other().acquire(), Kind::Backend, Duration::from_millis(5_101)).await;
        ends(client.lock("third").try_acquire(), Kind::Backend, Duration::from_millis(5_101)).await;
        ends(client.ping(), Kind::Backend, 5 * second).await;
        ends(client.contenders("k"), Kind::Backend, 5 * second).await;
        ends(client.break_lock("k"), Kind::Backend, 5 * second).await;
        let call = client.lock("fourth").acquire();
        call.cancel();
        ends(call, Kind::Cancelled, Duration::from_millis(251)).await;
    });
}

#[test]
fn a_lease_ends_by_its_ttl_and_its_release_is_bounded() {
    dlock::testing::simulate(1, None, async {
        let client = client(true);
        let lease = client.lock("k").ttl(Duration::from_secs(3)).acquire().await.unwrap();
        assert!(lease.is_held());
        ends(lease.renew(None), Kind::Backend, Duration::from_secs(5)).await;
        assert!(!lease.is_held());
        assert_eq!(lease.release().await.unwrap(), ReleaseOutcome::Lost);

        let lease = client.lock("l").acquire().await.unwrap();
        ends(lease.release(), Kind::Backend, Duration::from_millis(5_001)).await;
        assert!(!lease.is_held());
    });
}
