//! The same faults under another library's lock, which is known not to stand them: they reach what they are meant to.

use std::path::Path;
use std::process::Command;

use dlock_harness::proxy::{Action, Direction, Mode};

use crate::common::{ms, owner, proxy, server};

/// Runs redis-py 8.1.
fn redis_py(what: &str, port: u16) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(".venv/bin/python");
    let has = Command::new(&python).args(["-c", "import redis; assert redis.__version__.startswith('8.1.')"]).output();
    assert!(
        has.is_ok_and(|has| has.status.success()),
        "{} has no redis-py 8.1: run `make setup`, or .venv/bin/pip install -r requirements-dev.txt",
        python.display()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis/peer.py");
    let done = Command::new(python).arg(script).args([what, &port.to_string()]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).unwrap();
    println!("redis-py, {what}: {said}");
    said
}

#[test]
fn redis_py_says_busy_of_what_it_has_itself() {
    let server = server();
    let proxy = proxy(&server);
    let rule = proxy.rule(Direction::ToServer, "\r\nSET\r\n", 1..=1, Action::CutAfterForward);
    assert_eq!(redis_py("acquire", proxy.port()), "acquired False\n");
    assert_eq!(rule.fired(), 1);
    assert!(owner(&server, "k").is_some(), "its own token keeps everybody out");
}

#[test]
fn redis_py_says_lost_of_what_it_released() {
    let server = server();
    let proxy = proxy(&server);
    // The first finds that the server doesn't know the script yet.
    let rule = proxy.rule(Direction::ToServer, "EVALSHA", 2..=2, Action::CutAfterForward);
    let said = redis_py("release", proxy.port());
    assert!(rule.fired() == 1, "{said}");
    assert_eq!(owner(&server, "k"), None, "it was released");
    assert_eq!(said, "acquired True\nLockNotOwnedError\n");
}

#[test]
fn redis_py_leaves_keys_when_cancelled() {
    let server = server();
    let proxy = proxy(&server);
    proxy.set(Direction::ToClient, Mode::Delay(ms(1)));
    redis_py("cancel", proxy.port());
    let left = server.keys("k*").len();
    println!("{left} of 400 cancelled acquires left their key");
    assert!(left > 0);
}
