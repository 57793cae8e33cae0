//! Processes of ours and of other libraries, on one key: they keep one another out, and all have to wait for one another.

use std::path::Path;
use std::process::Command;

use dlock_harness::backends::TestServer;
use dlock_harness::other_clients::{ALONE, Contest, Rule, done, entry, go_mutex};

use crate::common::server;

/// The path of the lock for the other libraries.
const PATH: &str = "/locks/k";

/// The process of ours.
#[test]
fn one_of_ours() {
    dlock_harness::other_clients::one_of_ours();
}

/// Runs a contest with kazoo, whose locks follow the rule of the contest.
fn beside_kazoo(contest: &Contest<'_>, addr: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = folder.join("../../.venv/bin/python");
    let has = Command::new(&python).args(["-c", "import kazoo"]).output();
    let advice = "run `make setup`, or .venv/bin/pip install -r requirements-dev.txt";
    assert!(has.is_ok_and(|has| has.status.success()), "{} has no kazoo: {advice}", python.display());
    contest.run(|room, name| {
        let mut line = Command::new(&python);
        line.arg(folder.join("tests/zookeeper/peer.py"));
        line.args([addr, PATH, &contest.rule.to_string(), &contest.entries.to_string()]);
        done(line.args(entry(name)).current_dir(room));
    });
}

#[test]
fn ours_and_the_lock_of_kazoo_enter_one_at_a_time() {
    let server = server();
    beside_kazoo(&Contest::new(&server), &TestServer::addr(&server).to_string());
}

#[test]
fn ours_and_kazoos_readers_enter_together_and_its_writers_alone() {
    let server = server();
    let contest = Contest { rule: Rule::Readers, ..Contest::new(&server) };
    beside_kazoo(&contest, &TestServer::addr(&server).to_string());
}

#[test]
fn ours_and_the_semaphore_of_kazoo_have_no_more_than_its_leases() {
    let server = server();
    // The semaphore has a queue of its own, beside the holders.
    let at = |path: &str| server.contenders_of(path).len();
    let contenders = Box::new(|| at(PATH) + at("/locks/k-__lock__"));
    let contest = Contest { rule: Rule::Permits(2), contenders, ..Contest::new(&server) };
    beside_kazoo(&contest, &TestServer::addr(&server).to_string());
}

/// The archives of Curator and of what it needs.
const JARS: [&str; 8] = [
    "curator-recipes",
    "curator-framework",
    "curator-client",
    "zookeeper",
    "zookeeper-jute",
    "guava",
    "slf4j-api",
    "slf4j-nop",
];

#[test]
fn ours_and_the_mutex_of_curator_enter_one_at_a_time() {
    let classes = concat!(env!("CARGO_TARGET_TMPDIR"), "/curator");
    let jars = JARS.map(|name| format!("/usr/share/java/{name}.jar:")).concat();
    let mut javac = Command::new("javac");
    javac.args(["-J-Xmx96m", "-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-cp", &jars, "-d", classes]);
    done(javac.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zookeeper/Peer.java")));
    let server = server();
    let contest = Contest::new(&server);
    let contest = Contest { url: format!("{}?dialect=curator", contest.url), ..contest };
    contest.run(|room, name| {
        let mut line = Command::new("java");
        line.args([
            "-Xmx96m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            &format!("{jars}{classes}"),
            "Peer",
        ]);
        line.args([&TestServer::addr(&server).to_string(), PATH, &contest.entries.to_string()]);
        done(line.args(entry(name)).arg(ALONE).current_dir(room));
    });
}

#[test]
fn ours_and_the_lock_of_go_enter_one_at_a_time() {
    let (server, program) = (server(), go_mutex(env!("CARGO_TARGET_TMPDIR")));
    let contest = Contest::new(&server);
    contest.run(|room, name| {
        let mut line = Command::new(&program);
        line.args(["zookeeper", &TestServer::addr(&server).to_string(), PATH, &contest.entries.to_string()]);
        done(line.args(entry(name)).arg(ALONE).current_dir(room));
    });
}
