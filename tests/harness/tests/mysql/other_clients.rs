//! Processes of ours and of PyMySQL, on one key: they keep one another out, and wait for one another.

use std::path::Path;
use std::process::Command;

use dlock_harness::backends::TestServer;
use dlock_harness::backends::mysql::MySql;
use dlock_harness::other_clients::{ALONE, Contest, done, entry};

use crate::common::{LONG, acquired, begin, client, lock, ms, released, server, until};

/// The process of ours.
#[test]
fn one_of_ours() {
    dlock_harness::other_clients::one_of_ours();
}

#[test]
fn ours_and_the_lock_of_pymysql_enter_one_at_a_time() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = folder.join("../../.venv/bin/python");
    let has = Command::new(&python).args(["-c", "import pymysql"]).output();
    let advice = "run `make setup`, or .venv/bin/pip install -r requirements-dev.txt";
    assert!(has.is_ok_and(|has| has.status.success()), "{} has no pymysql: {advice}", python.display());
    let server = server();
    let contest = Contest { has_names: false, ..Contest::new(&server) };
    contest.run(|room, name| {
        let mut line = Command::new(&python);
        line.arg(folder.join("tests/mysql/peer.py"));
        line.args([&server.addr().port().to_string(), "k", &contest.entries.to_string()]);
        done(line.args(entry(name)).arg(ALONE).current_dir(room));
    });
}

#[test]
fn ours_and_a_plain_user_of_get_lock_wait_for_one_another() {
    let server = server();
    let ours = client(&server);
    server.hold("k", ms(1000)).unwrap();
    let waiting = begin(&lock(&ours, "k", LONG));
    until("ours waits for theirs", LONG, || server.waiters("k").len() == 1);
    released(&waiting.join().unwrap().unwrap());

    let held = acquired(&ours, "k");
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| server.rows("SELECT GET_LOCK('k', 10)"));
        until("theirs waits for ours", LONG, || server.rows(&MySql::waiting("k")).len() == 1);
        released(&held);
        assert_eq!(theirs.join().unwrap(), ["1"]);
    });
}
