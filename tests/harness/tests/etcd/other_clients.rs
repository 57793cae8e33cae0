//! Processes of ours and programs that use etcd's own mutex, on one key: nobody is inside beside another, all have to
//! wait for one another, and a folder that knows nothing of locks bears witness.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use dlock::Client;
use dlock_harness::backends::etcd::Etcd;
use tempfile::TempDir;

use crate::common::{LONG, acquired, again, client, contenders, released, server, until_contenders};

/// For one process of ours: where the lock is, its name in the folder, how often it enters, and every how many-th time
/// without the lock.
const JOB: &str = "DLOCK_TEST_BESIDE";
/// How often each process enters.
const ENTRIES: &str = "DLOCK_TEST_ENTRIES";
/// So many of ours, and so many of the others.
const EACH: usize = 3;

/// Where all enter, one at a time.
struct Room(TempDir);

/// What came of it.
#[derive(Debug)]
struct Outcome {
    entries: usize,
    overlaps: usize,
    count: usize,
    /// Who entered, in order.
    order: Vec<String>,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("count"), "0\n").unwrap();
        Self(folder)
    }

    /// The command that enters and leaves.
    fn entry(name: &str) -> [&str; 3] {
        ["sh", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/etcd/entry.sh"), name]
    }

    fn outcome(&self, entries: usize) -> Outcome {
        let read = |name: &str| std::fs::read_to_string(self.0.path().join(name)).unwrap_or_default();
        Outcome {
            entries: 2 * EACH * entries,
            overlaps: read("overlaps").lines().count(),
            count: read("count").trim().parse().unwrap_or_default(),
            order: read("order").lines().map(str::to_owned).collect(),
        }
    }
}

impl Outcome {
    fn judge(&self) -> Result<(), String> {
        let Self { entries, overlaps, count, order } = self;
        if *overlaps > 0 || count != entries || order.len() != *entries {
            return Err(format!("{entries} entries: {overlaps} overlaps, {count} counted, {} signed", order.len()));
        }
        Ok(())
    }

    /// How often one of ours came after one of the others, or one of them after one of ours.
    fn turns(&self) -> usize {
        self.order.windows(2).filter(|pair| pair[0].starts_with("ours") != pair[1].starts_with("ours")).count()
    }
}

/// The process of ours.
#[test]
fn one_of_ours() {
    let Ok(job) = std::env::var(JOB) else { return };
    let [url, name, entries, rogue] = job.split(' ').collect::<Vec<_>>()[..] else { panic!("{job:?}") };
    let (entries, rogue): (usize, usize) = (entries.parse().unwrap(), rogue.parse().unwrap());
    let client = Client::connect(url).unwrap();
    let enter = || {
        let [program, words @ ..] = Room::entry(name);
        assert!(Command::new(program).args(words).status().unwrap().success());
    };
    let (mut they_wait, mut we_wait) = (0, 0);
    for n in 1..=entries {
        if rogue > 0 && n % rogue == 0 {
            enter();
            continue;
        }
        let lease = client.lock("k").wait(LONG * 6).acquire().wait().unwrap();
        let queue = client.contenders("k").wait().unwrap();
        let theirs = queue.iter().position(|one| one.pid.is_none());
        they_wait += usize::from(theirs.is_some());
        we_wait += usize::from(theirs.is_some_and(|at| queue[at..].iter().any(|one| one.pid.is_some())));
        enter();
        released(&lease);
    }
    println!("> {they_wait} {we_wait}");
}

/// What a process has printed, once it has ended well.
fn done(line: &mut Command) -> String {
    let Output { status, stdout, stderr } = line.output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{line:?}\n{said}{complained}");
    said.into_owned()
}

/// Go's mutex as a program of its own.
fn go_mutex() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../go");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-mutex");
    let mut line = Command::new("go");
    line.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".").current_dir(source);
    line.env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("CGO_ENABLED", "0");
    let built = line.output();
    assert!(
        built.as_ref().is_ok_and(|built| built.status.success()),
        "Go's mutex can't be built; `.ci/setup go` sees to Go and its modules: {}",
        built.map_or_else(|error| format!("go: {error}"), |built| String::from_utf8_lossy(&built.stderr).into_owned())
    );
    program
}

/// All on one key: three processes of ours, and three times what `theirs` does in a folder under a name, so many times.
fn beside(entries: usize, rogue: usize, theirs: impl Fn(&Etcd, &Path, &str) + Sync) -> Outcome {
    let (server, room) = (server(), Room::new());
    let first = client(server.addr());
    let held = acquired(&first, "k");
    let begun = Instant::now();
    let (mut they_wait, mut we_wait) = (0, 0);
    std::thread::scope(|scope| {
        let ours: Vec<_> = (0..EACH)
            .map(|n| {
                let mut line = again("other_clients::one_of_ours");
                line.env(JOB, format!("{} ours-{n} {entries} {rogue}", server.url())).current_dir(room.0.path());
                scope.spawn(move || done(&mut line))
            })
            .collect();
        for n in 0..EACH {
            let (server, room, theirs) = (&server, room.0.path(), &theirs);
            scope.spawn(move || theirs(server, room, &format!("theirs-{n}")));
        }
        until_contenders(&server, "k", 1 + 2 * EACH);
        released(&held);
        for one in ours {
            let said = one.join().unwrap();
            let (_, waits) = said.split_once("> ").unwrap();
            let mut waits = waits.split_whitespace().map(|number| number.parse::<usize>().unwrap());
            they_wait += waits.next().unwrap();
            we_wait += waits.next().unwrap();
        }
    });
    assert_eq!(contenders(&server, "k"), [""; 0]);
    let outcome = room.outcome(entries);
    let (turns, looks) = (outcome.turns(), outcome.entries / 2);
    println!(
        "{} entries in {:.1} s: {} overlaps, {turns} turns; of {looks} looks, {they_wait} saw one of them wait, {we_wait} one \
         of ours behind them",
        outcome.order.len(),
        begun.elapsed().as_secs_f64(),
        outcome.overlaps,
    );
    if rogue == 0 {
        let least = outcome.entries / 10;
        assert!(turns.min(they_wait).min(we_wait) >= least, "they didn't contend");
    }
    outcome
}

/// How often each enters.
fn entries() -> usize {
    std::env::var(ENTRIES).map_or(100, |text| text.parse().expect(ENTRIES))
}

/// One etcdctl an entry.
fn etcdctl(server: &Etcd, room: &Path, name: &str, entries: usize) {
    for _ in 0..entries {
        done(server.ctl_line(&["lock", "k"]).args(Room::entry(name)).current_dir(room));
    }
}

#[test]
fn ours_and_etcdctl_enter_one_at_a_time() {
    let entries = entries();
    beside(entries, 0, |server, room, name| etcdctl(server, room, name, entries)).judge().unwrap();
}

#[test]
fn ours_and_the_mutex_of_go_enter_one_at_a_time() {
    let (entries, program) = (entries(), go_mutex());
    let theirs = |server: &Etcd, room: &Path, name: &str| {
        let mut line = Command::new(&program);
        line.args([&server.addr().to_string(), "k", &entries.to_string()]).args(Room::entry(name));
        done(line.current_dir(room));
    };
    beside(entries, 0, theirs).judge().unwrap();
}

#[test]
fn one_that_enters_without_the_lock_is_noticed() {
    let outcome = beside(40, 2, |server, room, name| etcdctl(server, room, name, 40));
    assert!(outcome.overlaps > 0 && outcome.judge().is_err(), "{outcome:?}");
}
