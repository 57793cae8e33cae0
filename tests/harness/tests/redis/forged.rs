//! Messages that the server didn't send: anybody who knows a channel may write to it.

use dlock::clock::Instant;
use dlock_harness::backends::redis::Redis;

use crate::common::{LONG, client, lock, ms, owner, queued, released, scripts_run, server, until, until_queued};

/// The only contender for `k`, its claim's number, and the stamp of its last request.
fn waiting(server: &Redis) -> (String, u64, u64) {
    let details: Vec<String> = server.get(&["HVALS", "dlock:d:{k}"]);
    let mut words = details.iter().find(|detail| detail.starts_with("dlock:")).expect("somebody waits").split(' ');
    let (contender, number) = words.next().unwrap().rsplit_once('.').unwrap();
    (contender.to_owned(), number.parse().unwrap(), words.nth(1).unwrap().parse().unwrap())
}

fn publish(server: &Redis, contender: &str, text: &str) {
    let heard: i64 = server.get(&["PUBLISH", &format!("dlock:c:{contender}"), text]);
    assert_eq!(heard, 1, "{text}");
}

#[test]
fn a_message_that_was_made_up_grants_nothing() {
    let server = server();
    server.command(&["SET", "k", "somebody", "PX", "60000"]);
    let client = client(server.addr());
    // Of itself it looks again after 5 s.
    let waiting_for = lock(&client, "k", ms(60_000)).wait(LONG * 3).acquire();
    let waiter = std::thread::spawn(move || waiting_for.wait().unwrap());
    until_queued(&server, "k", 1);
    let (contender, number, _) = waiting(&server);
    let now = Instant::now().nanos();
    let made_up: [&dyn Fn(u64) -> String; 9] = [
        &|_| format!("G {contender}.{number} 7 {} k", u64::MAX - 1),
        &|_| format!("G {contender}.{number} 7 {} k", now + 3_600_000_000_000),
        &|_| format!("G {contender}.{number} 7 {now} k"),
        &|stamp| format!("G {contender}.{number} 7 {} k", stamp + 1),
        &|stamp| format!("G {contender}.{number} 7 {stamp} other"),
        &|stamp| format!("G {contender}.{number} {} {stamp} k", u64::MAX),
        &|stamp| format!("G {contender}.{number} seven {stamp} k"),
        &|_| format!("G {contender}.{number}"),
        &|_| "X".to_owned(),
    ];
    for text in made_up {
        let (_, _, stamp) = waiting(&server);
        publish(&server, &contender, &text(stamp));
        if text(stamp).ends_with('k') {
            until("it has looked again, and only that", LONG, || waiter.is_finished() || waiting(&server).2 != stamp);
        }
        assert!(!waiter.is_finished(), "beside {:?}: {:?}", owner(&server, "k"), waiter.join());
    }
    assert_eq!((queued(&server, "k"), owner(&server, "k").as_deref()), (1, Some("somebody")));
    server.command(&["DEL", "k"]);
    let lease = waiter.join().unwrap();
    assert_eq!(owner(&server, "k"), Some(lease.token()));
    assert!(lease.valid_until() < Instant::now().plus(ms(60_000)));
    released(&lease);
}

#[test]
fn a_message_for_a_claim_that_never_waited_takes_nothing_back() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting_for = lock(&b, "k", LONG).acquire();
    let waiter = std::thread::spawn(move || waiting_for.wait().unwrap());
    until_queued(&server, "k", 1);
    let (contender, number, stamp) = waiting(&server);
    released(&holder);
    let lease = waiter.join().unwrap();
    let answered = || {
        // Behind the messages on the same connection; what they were answered with is sent by then.
        for _ in 0..3 {
            b.ping().wait().unwrap();
        }
        scripts_run(&server)
    };
    let run = answered();
    let fence = lease.fence().unwrap();
    // The true one once more, and those of claims to come.
    publish(&server, &contender, &format!("G {contender}.{number} {fence} {stamp} k"));
    for later in 1..20 {
        publish(&server, &contender, &format!("G {contender}.{} {fence} {stamp} k", number + later));
    }
    assert_eq!(answered(), run, "something was asked for because of messages that nobody sent");
    assert!(lease.is_held() && owner(&server, "k") == Some(lease.token()));
    released(&lease);
    let next = lock(&b, "k", LONG).acquire().wait().unwrap();
    let run = answered();
    publish(&server, &contender, &format!("G {contender}.{number} {fence} {stamp} k"));
    assert_eq!(answered(), run, "a message came twice, and something was asked for because of it");
    assert_eq!(owner(&server, "k"), Some(next.token()));
    released(&next);
}
