//! What others do to the data: all of it, the key or the scripts are deleted, overwritten, of another type.

use dlock::{Kind, ReleaseOutcome};
use dlock_harness::backends::redis::Redis;

use crate::common::{
    LONG, SLACK, client, left_over, lock, ms, owner, queued, released, server, until, until_clean, until_queued,
};

type Spoil = (&'static str, &'static [&'static [&'static str]]);

const SPOILT: [Spoil; 5] = [
    ("everything deleted", &[&["FLUSHALL"]]),
    ("the key deleted", &[&["DEL", "k"]]),
    ("the key overwritten", &[&["SET", "k", "another's", "PX", "300"]]),
    ("the key a list", &[&["DEL", "k"], &["RPUSH", "k", "1"], &["PEXPIRE", "k", "300"]]),
    ("all side keys deleted", &[&["DEL", "k", "dlock:f:{k}", "dlock:q:{k}", "dlock:d:{k}"]]),
];

fn spoil(server: &Redis, (_, commands): &Spoil) {
    for command in *commands {
        server.command(command);
    }
}

#[test]
fn a_holder_learns_of_it_and_touches_nothing() {
    for case in &SPOILT {
        let server = server();
        let client = client(server.addr());
        let lease = lock(&client, "k", ms(900)).acquire().wait().unwrap();
        spoil(&server, case);
        assert!(lease.lost_within(Some(ms(300) + SLACK)).wait().unwrap(), "{}: not told", case.0);
        assert_eq!(lease.check().unwrap_err().kind(), Kind::Lost);
        assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Lost, "{}", case.0);
        until("what is in its place is over", LONG, || server.get::<i64>(&["EXISTS", "k"]) == 0);
        let again = lock(&client, "k", ms(900)).acquire().wait().unwrap();
        assert!(again.fence() > lease.fence(), "{}", case.0);
        released(&again);
    }
}

#[test]
fn a_stale_handle_changes_nothing_of_anothers() {
    let server = server();
    let client = client(server.addr());
    for (n, word) in ["release", "renew"].into_iter().enumerate() {
        let key = &format!("k{n}");
        let lease = lock(&client, key, LONG).acquire().wait().unwrap();
        server.command(&["SET", key, "another's", "PX", "5000"]);
        if word == "release" {
            assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Lost);
        } else {
            assert_eq!(lease.renew(None).wait().unwrap_err().kind(), Kind::Lost);
        }
        assert_eq!(owner(&server, key).as_deref(), Some("another's"), "{word}");
        assert!(server.get::<i64>(&["PTTL", key]) <= 5000, "{word}");
    }
}

#[test]
fn a_waiter_comes_in_all_the_same() {
    for case in &SPOILT {
        let server = server();
        let (a, b) = (client(server.addr()), client(server.addr()));
        let lease = lock(&a, "k", ms(600)).acquire().wait().unwrap();
        let waiting = lock(&b, "k", ms(600)).acquire();
        let waiter = std::thread::spawn(move || waiting.wait());
        until_queued(&server, "k", 1);
        spoil(&server, case);
        match waiter.join().unwrap() {
            Ok(next) => {
                assert!(next.fence() > lease.fence(), "{}", case.0);
                released(&next);
            }
            // Nothing that a lock can wait for.
            Err(error) => {
                assert_eq!((case.0, error.kind(), error.is_temporary()), ("the key a list", Kind::Backend, false));
                assert!(error.message().contains("list") && error.message().contains("another key"), "{error}");
            }
        }
        drop(lease);
        until_clean(&server, ms(2000));
    }
}

#[test]
fn scripts_are_sent_again_when_the_server_has_forgotten_them() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let forget = || server.command(&["SCRIPT", "FLUSH"]);
    for _ in 0..20 {
        forget();
        let lease = lock(&a, "k", LONG).acquire().wait().unwrap();
        let waiting = lock(&b, "k", LONG).acquire();
        forget();
        let waiter = std::thread::spawn(move || waiting.wait().unwrap());
        until_queued(&server, "k", 1);
        forget();
        lease.renew(None).wait().unwrap();
        forget();
        assert_eq!(a.contenders("k").wait().unwrap().len(), 2);
        forget();
        released(&lease);
        let next = waiter.join().unwrap();
        assert!(next.fence() > lease.fence());
        forget();
        assert!(b.break_lock("k").wait().unwrap());
        assert_eq!(next.release().wait().unwrap(), ReleaseOutcome::Lost);
        assert_eq!(queued(&server, "k"), 0);
    }
    assert_eq!(left_over(&server), Vec::<String>::new());
}

#[test]
fn whoever_loses_it_to_a_break_is_told_and_the_first_waiter_gets_it() {
    let server = server();
    let (a, b, c) = (client(server.addr()), client(server.addr()), client(server.addr()));
    let lease = lock(&a, "k", LONG).acquire().wait().unwrap();
    let waiting = lock(&b, "k", LONG).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 1);
    assert!(c.break_lock("k").wait().unwrap());
    let next = waiter.join().unwrap();
    until("the holder is told", SLACK, || !lease.is_held());
    assert_eq!(owner(&server, "k"), Some(next.token()));
    released(&next);
}
