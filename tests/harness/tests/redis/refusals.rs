//! What a server refuses with, and what the caller is told to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dlock::Kind;
use dlock_harness::backends::redis::Canned;

use crate::common::{LATE, LONG, SLACK, client, cold, lock, ms, released, server};

fn is_script(words: &[Vec<u8>]) -> bool {
    words.first().is_some_and(|word| word.starts_with(b"EVAL"))
}

#[test]
fn each_refusal_has_its_kind_and_its_remedy() {
    let refusals = [
        ("-LOADING Redis is loading the dataset in memory", true, "loads"),
        ("-READONLY You can't write against a read only replica.", true, "master"),
        ("-NOPERM this user has no permissions to run the 'evalsha' command", false, "user"),
        ("-MISCONF Redis is configured to save RDB snapshots", true, "disk"),
        ("-OOM command not allowed when used memory > 'maxmemory'.", true, "maxmemory"),
        ("-BUSY Redis is busy running a script.", true, "script"),
        ("-CLUSTERDOWN The cluster is down", true, "not ready"),
        ("-MASTERDOWN Link with MASTER is down", true, "not ready"),
        ("-MOVED 1 127.0.0.1:1", false, "cluster"),
        ("-ERR something else", false, "not expected"),
    ];
    let server = server();
    let refused = &|reply: &str, temporary: bool, remedy: &str| {
        let bytes = format!("{reply}\r\n").into_bytes();
        let canned = Canned::start(server.addr(), move |words| is_script(words).then(|| bytes.clone())).unwrap();
        let client = cold(canned.addr(), ms(1000));
        let begun = std::time::Instant::now();
        for error in [
            lock(&client, "k", LONG).try_acquire().wait().unwrap_err(),
            lock(&client, "k", LONG).wait(ms(1500)).acquire().wait().unwrap_err(),
            client.contenders("k").wait().unwrap_err(),
            client.break_lock("k").wait().unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.is_temporary()), (Kind::Backend, temporary), "{error:?}");
            assert!(error.message().contains(remedy), "{reply}: {error}");
        }
        // Each is asked again for as long as a request may take, where another server may be found by that.
        assert!(begun.elapsed() < ms(5500) + LATE + SLACK, "{reply}: {:?}", begun.elapsed());
        client.ping().wait().unwrap();
    };
    std::thread::scope(|scope| {
        for (reply, temporary, remedy) in refusals {
            scope.spawn(move || refused(reply, temporary, remedy));
        }
    });
    assert!(server.keys("*").is_empty());
}

#[test]
fn what_a_server_doesnt_do_now_is_asked_again_on_another_connection() {
    let server = server();
    for reply in [
        "-LOADING Redis is loading the dataset in memory",
        "-READONLY You can't write against a read only replica.",
        // Before version 7.
        "-ERR Error running script (call to f_0a): @user_script:5: -READONLY You can't write against a read only replica.",
        "-NOREPLICAS Not enough good replicas to write.",
        "-CLUSTERDOWN The cluster is down",
        "-MASTERDOWN Link with MASTER is down",
    ] {
        let (bytes, left) = (format!("{reply}\r\n").into_bytes(), AtomicU64::new(0));
        let left = Arc::new(left);
        let refusals = left.clone();
        let canned = Canned::start(server.addr(), move |words| {
            let refuse = |left: u64| left.checked_sub(1);
            let refused = is_script(words) && refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok();
            refused.then(|| bytes.clone())
        });
        let canned = canned.unwrap();
        let client = client(canned.addr());
        for _ in 0..2 {
            left.store(3, Ordering::SeqCst);
            let lease = lock(&client, "k", LONG).try_acquire().wait().unwrap().expect("it is free");
            left.store(3, Ordering::SeqCst);
            lease.renew(None).wait().unwrap();
            left.store(3, Ordering::SeqCst);
            assert_eq!(client.contenders("k").wait().unwrap().len(), 1);
            left.store(3, Ordering::SeqCst);
            released(&lease);
        }
        assert_eq!(left.load(Ordering::SeqCst), 0, "the fault was not injected");
    }
}

#[test]
fn a_refused_renewal_is_no_loss() {
    let server = server();
    let refuse = Arc::new(AtomicU64::new(0));
    let refusing = refuse.clone();
    let canned = Canned::start(server.addr(), move |words| {
        (is_script(words) && refusing.load(Ordering::SeqCst) > 0).then(|| b"-MISCONF its disk is full\r\n".to_vec())
    });
    let canned = canned.unwrap();
    let client = client(canned.addr());
    let lease = lock(&client, "k", ms(2000)).acquire().wait().unwrap();
    refuse.store(1, Ordering::SeqCst);
    let error = lease.renew(None).wait().unwrap_err();
    assert!(error.kind() == Kind::Backend && error.is_temporary(), "{error:?}");
    lease.check().unwrap();
    refuse.store(0, Ordering::SeqCst);
    lease.renew(None).wait().unwrap();
    released(&lease);
}

#[test]
fn a_server_that_never_keeps_scripts_is_sent_their_text() {
    let server = server();
    let refused = Arc::new(AtomicU64::new(0));
    let count = refused.clone();
    let canned = Canned::start(server.addr(), move |words| {
        (words[0] == b"EVALSHA").then(|| {
            count.fetch_add(1, Ordering::Relaxed);
            b"-NOSCRIPT No matching script.\r\n".to_vec()
        })
    });
    let canned = canned.unwrap();
    let (client, other) = (client(canned.addr()), client(canned.addr()));
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    lease.renew(None).wait().unwrap();
    assert!(lock(&other, "k", LONG).try_acquire().wait().unwrap().is_none());
    released(&lease);
    released(&lock(&other, "k", LONG).acquire().wait().unwrap());
    assert!(refused.load(Ordering::Relaxed) >= 6, "the fault was not injected");
}
