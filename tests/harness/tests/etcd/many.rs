//! What grows at the server: keys of longer names beside a lock, keys of one lease, contenders of one lock.

use dlock::{Client, Kind, Lease, ReleaseOutcome};
use dlock_harness::backends::etcd::Etcd;
use etcd_client::{DeleteOptions, Txn, TxnOp};

use crate::common::{LONG, acquired, begin, client, cold, lock, ms, next, released, requests, server, until};

/// What another client of etcd does, all of it.
fn raw<T>(server: &Etcd, work: impl AsyncFnOnce(etcd_client::Client) -> T) -> T {
    server.raw(async |client| Ok(work(client).await)).unwrap()
}

/// Puts these keys there, each with this value.
fn plant(server: &Etcd, keys: impl Iterator<Item = String>, value: &str) {
    let keys: Vec<_> = keys.collect();
    raw(server, async |client| {
        for chunk in keys.chunks(100) {
            let puts: Vec<_> = chunk.iter().map(|key| TxnOp::put(key.as_str(), value, None)).collect();
            client.kv_client().txn(Txn::new().and_then(puts)).await.unwrap();
        }
    });
}

/// Requests about keys, and bytes that the server has sent for all requests.
fn spent(server: &Etcd, work: impl FnOnce()) -> (u64, u64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let sent = || server.figure("etcd_network_client_grpc_sent_bytes_total") as u64;
    let before = (requests(server), sent());
    work();
    (requests(server) - before.0, sent() - before.1)
}

fn pairs(client: &Client) {
    (0..5).for_each(|_| released(&acquired(client, "tree")));
}

/// What five pairs cost beside keys that these names have.
fn beside(name: impl Fn(usize) -> String) {
    const MANY: usize = 10_000;
    let server = server();
    let client = client(server.addr());
    let alone = spent(&server, || pairs(&client));
    plant(&server, (0..MANY).map(|n| format!("tree/{}/7d2c81f5a9b3{n:04x}", name(n))), "");
    let first = spent(&server, || released(&acquired(&client, "tree")));
    let many = spent(&server, || pairs(&client));
    println!("five pairs alone {alone:?}, the first beside {MANY} {first:?}, five then {many:?}");
    assert!(first.0 <= 10, "the first pair took {} requests", first.0);
    assert_eq!(many.0, alone.0, "requests of five pairs");
    assert!(many.1 <= alone.1 * 2, "the server sent {} bytes for five pairs, alone {}", many.1, alone.1);

    // Who tries writes nothing, and who waits is told of what concerns it.
    let other = cold(&server.addr().to_string());
    let held = acquired(&client, "tree");
    assert!(other.lock("tree").try_acquire().wait().unwrap().is_none());
    let tried = spent(&server, || assert!(other.lock("tree").try_acquire().wait().unwrap().is_none()));
    assert_eq!(tried.0, 1, "requests of a try");
    let waiter = begin(&lock(&other, "tree", ms(30_000)));
    until("it waits", LONG, || client.contenders("tree").wait().unwrap().len() == 2);
    released(&held);
    released(&waiter.join().unwrap().unwrap());
}

#[test]
fn a_pair_beside_ten_thousand_longer_names_costs_what_it_costs_alone() {
    beside(|n| format!("leaf-{n}"));
}

/// Names that begin as a lease's number does are in the same range as the contenders.
#[test]
fn a_pair_beside_ten_thousand_numbers_costs_what_it_costs_alone() {
    beside(|n| format!("{n:x}"));
}

#[test]
fn deletions_of_longer_names_are_not_told_to_who_waits() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    plant(&server, (0..2000).map(|n| format!("tree/leaf-{n}/7d2c81f5a9b3{n:04x}")), "");
    let held = acquired(&a, "tree");
    let waiter = begin(&lock(&b, "tree", ms(30_000)));
    until("it waits", LONG, || a.contenders("tree").wait().unwrap().len() == 2);
    std::thread::sleep(ms(300));
    let (_, sent) = spent(&server, || {
        let prefix = DeleteOptions::new().with_prefix();
        raw(&server, async |client| client.kv_client().delete("tree/leaf", Some(prefix)).await.unwrap());
        std::thread::sleep(ms(300));
    });
    assert!(sent < 20_000, "the server sent {sent} bytes");
    released(&held);
    released(&waiter.join().unwrap().unwrap());
}

/// A contender of another client is found behind however many keys of longer names that came before and after it.
#[test]
fn a_contender_among_longer_names_is_seen() {
    let server = server();
    let client = client(server.addr());
    let leaves = |from: usize| (from..from + 300).map(|n| format!("tree/{n:x}/7d2c81f5a9b3{n:04x}"));
    for round in 0..3 {
        plant(&server, leaves(round * 600), "");
        pairs(&client);
        let theirs = format!("tree/694d8d9f0a3c1e0{round}");
        plant(&server, [theirs.clone()].into_iter(), "");
        plant(&server, leaves(round * 600 + 300), "");
        assert!(client.lock("tree").try_acquire().wait().unwrap().is_none(), "round {round}");
        let error = lock(&client, "tree", ms(30_000)).wait(ms(50)).acquire().wait().unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        let waiter = begin(&lock(&client, "tree", ms(30_000)));
        until("it waits", LONG, || client.contenders("tree").wait().unwrap().len() == 2);
        raw(&server, async |client| client.kv_client().delete(theirs, None).await.unwrap());
        released(&waiter.join().unwrap().unwrap());
    }
}

/// A cluster that was restored has gone back behind what a client has seen of the longer names, and on past that before the
/// client asks again.
#[test]
fn what_was_seen_before_a_restore_is_looked_at_again() {
    let mut server = server();
    let client = client(server.addr());
    plant(&server, (0..50).map(|n| format!("tree/{n:x}/7d2c81f5a9b3{n:04x}")), "");
    pairs(&client);
    server.restart_empty().unwrap();
    plant(&server, ["tree/694d8d9f0a3c1e00".to_owned()].into_iter(), "");
    raw(&server, async |client| {
        for _ in 0..50 {
            client.kv_client().put("on", "", None).await.unwrap();
        }
    });
    assert!(client.lock("tree").try_acquire().wait().unwrap().is_none());
    let error = lock(&client, "tree", ms(30_000)).wait(ms(50)).acquire().wait().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
}

/// A setting below the name is no contender.
#[test]
fn what_is_no_lease_blocks_nothing() {
    let server = server();
    let client = client(server.addr());
    plant(&server, ["k/limit", "k/0123456789abcdef0", "k/", "k/12G"].map(str::to_owned).into_iter(), "");
    released(&client.lock("k").try_acquire().wait().unwrap().expect("nobody contends"));
    assert!(client.contenders("k").wait().unwrap().is_empty());
}

/// Keys of 8 KB, so that few of them are more than the 4 MiB of an answer.
#[test]
fn more_locks_than_one_answer_can_list_are_kept() {
    const MANY: usize = 700;
    let server = server();
    let prefix = "p".repeat(8000);
    let url = format!("etcd://{}?connect_timeout=5.{:06}&prefix={prefix}", server.addr(), next());
    let client = Client::connect(&url).unwrap();
    let ops: Vec<_> = (0..MANY).map(|n| lock(&client, &format!("k{n}"), ms(4000)).wait(LONG * 3).acquire()).collect();
    let held: Vec<Lease> = ops.into_iter().map(|op| op.wait().unwrap()).collect();
    let leases = server.ctl(&["lease", "list"]).lines().count() - 1;
    std::thread::sleep(ms(6000));
    let lost = held.iter().filter(|lease| !lease.is_held()).count();
    assert_eq!(lost, 0, "so many of {MANY} were lost");
    assert!((2..=40).contains(&leases), "{leases} leases");
    // Many under way at once: one after the other they take longer than their ttl on a busy machine, and all at once keep
    // the last ones waiting for longer than a release may take.
    for some in held.chunks(50) {
        let (tell, told) = std::sync::mpsc::channel();
        for lease in some {
            let tell = tell.clone();
            lease.release().on_done(move |outcome| tell.send(outcome).unwrap());
        }
        told.iter().take(some.len()).for_each(|outcome| assert_eq!(outcome.unwrap(), ReleaseOutcome::Released));
    }
    // What the first lease has room for again is used again.
    drop(held);
    let leases = server.ctl(&["lease", "list"]).lines().count();
    released(&acquired(&client, "k"));
    assert!(server.ctl(&["lease", "list"]).lines().count() <= leases + 1);
}

#[test]
fn ten_thousand_contenders_are_listed() {
    const MANY: usize = 10_000;
    let server = server();
    let client = client(server.addr());
    let label = "x".repeat(500);
    let value = format!("1 dlock:host:77:{}:1.1 0 {label}", "0".repeat(32));
    plant(&server, (0..MANY).map(|n| format!("k/7d2c81f5a9b3{n:04x}")), &value);
    let all = client.contenders("k").wait().unwrap();
    assert_eq!(all.len(), MANY);
    assert!(all[0].held && !all[1].held && all[MANY - 1].label.as_deref() == Some(label.as_str()));
    let error = lock(&client, "k", ms(30_000)).wait(ms(3000)).acquire().wait().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
    assert!(client.break_lock("k").wait().unwrap());
}
