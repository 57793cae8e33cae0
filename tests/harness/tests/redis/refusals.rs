//! What a server refuses with, and what the caller is told to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dlock::Kind;
use dlock_harness::server::Canned;

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
    for (reply, temporary, remedy) in refusals {
        let bytes = format!("{reply}\r\n").into_bytes();
        let canned = Canned::start(server.addr(), move |words| is_script(words).then(|| bytes.clone())).unwrap();
        let client = cold(canned.addr(), ms(1000));
        let begun = std::time::Instant::now();
        for error in [
            lock(&client, "k", LONG).try_acquire().wait().unwrap_err(),
            lock(&client, "k", LONG).wait(ms(50)).acquire().wait().unwrap_err(),
            client.holders("k").wait().unwrap_err(),
            client.break_lock("k").wait().unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.is_temporary()), (Kind::Backend, temporary), "{error:?}");
            assert!(error.message().contains(remedy), "{reply}: {error}");
        }
        assert!(begun.elapsed() < ms(1050) + LATE + SLACK, "{reply}: {:?}", begun.elapsed());
        client.ping().wait().unwrap();
    }
    assert!(server.keys("*").is_empty());
}

#[test]
fn a_refused_renewal_is_no_loss() {
    let server = server();
    let refuse = Arc::new(AtomicU64::new(0));
    let refusing = refuse.clone();
    let canned = Canned::start(server.addr(), move |words| {
        (is_script(words) && refusing.load(Ordering::SeqCst) > 0).then(|| b"-LOADING it loads\r\n".to_vec())
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
