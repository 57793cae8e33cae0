//! Processes of ours and processes that lock with another library, on one key. All enter a folder, and `entry.sh`, which
//! knows nothing about locks, notes who is inside.

#![allow(clippy::print_stdout, reason = "measurements, and the words of a process to the one that has started it")]

mod room;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use dlock::{Client, Lock, Mode};

use self::room::Room;
pub use self::room::{ALONE, Outcome, Rule};
use crate::backends::TestServer;
use crate::scenario::{LONG, again, ms, released};

/// The variable of one process of ours. It has the URL, the process's name in the folder, the rule, the number of
/// entries, and the number after which an entry is without the lock.
const JOB: &str = "DLOCK_TEST_BESIDE";
/// The variable with the number of entries of each process.
const ENTRIES: &str = "DLOCK_TEST_ENTRIES";
/// The number of processes on each side.
const EACH: usize = 3;

/// Returns the number of entries of each process.
///
/// # Panics
/// If the variable has no number.
fn entries() -> usize {
    std::env::var(ENTRIES).map_or(100, |text| text.parse().expect(ENTRIES))
}

/// Returns the command that enters and leaves. Its last word is still missing: how it enters.
pub fn entry(name: &str) -> [&str; 3] {
    ["sh", concat!(env!("CARGO_MANIFEST_DIR"), "/src/other_clients/entry.sh"), name]
}

/// Runs a process to its end and returns what it has printed.
///
/// # Panics
/// If it fails.
pub fn done(line: &mut Command) -> String {
    let Output { status, stdout, stderr } = line.output().unwrap_or_else(|error| panic!("{line:?}: {error}"));
    let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{line:?}\n{said}{complained}");
    said.into_owned()
}

/// Builds the mutexes of Go in this folder and returns the program.
///
/// # Panics
/// If it can't be built.
pub fn go_mutex(folder: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../go");
    let program = Path::new(folder).join("go-mutex");
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

/// Returns the lock of the entry with this number.
fn lock(client: &Client, rule: Rule, n: usize) -> Lock {
    let lock = client.lock("k").wait(LONG * 6);
    match rule {
        Rule::Permits(limit) => lock.mode(Mode::Permits { count: 1, limit }),
        _ if rule.how(n) == ALONE => lock,
        _ => lock.mode(Mode::Shared),
    }
}

/// Does the work of one process of ours, if this process is one. Each program that has a contest has the test
/// `other_clients::one_of_ours`, which only calls this.
///
/// # Panics
/// If a call fails.
pub fn one_of_ours() {
    let Ok(job) = std::env::var(JOB) else { return };
    let [url, name, rule, entries, rogue] = job.split(' ').collect::<Vec<_>>()[..] else { panic!("{job:?}") };
    let (rule, entries): (Rule, usize) = (rule.parse().unwrap(), entries.parse().unwrap());
    let rogue: usize = rogue.parse().unwrap();
    let client = Client::connect(url).unwrap();
    let (mut they_wait, mut we_wait) = (0, 0);
    for n in 1..=entries {
        let enter = || {
            let [program, words @ ..] = entry(name);
            done(Command::new(program).args(words).arg(rule.how(n)));
        };
        if rogue > 0 && n % rogue == 0 {
            enter();
            continue;
        }
        let lease = lock(&client, rule, n).acquire().wait().unwrap();
        let queue = client.contenders("k").wait().unwrap();
        let theirs = queue.iter().position(|one| one.pid.is_none());
        they_wait += usize::from(queue.iter().any(|one| one.pid.is_none() && !one.held));
        let behind = theirs.map_or(&[][..], |at| &queue[at..]);
        we_wait += usize::from(behind.iter().any(|one| one.pid.is_some() && !one.held));
        enter();
        released(&lease);
    }
    println!("> {they_wait} {we_wait}");
}

/// Three processes of ours beside three others, on the key `k`.
pub struct Contest<'a> {
    /// The URL of the locks.
    pub url: String,
    /// The entries that may be inside at once.
    pub rule: Rule,
    /// The number of entries of each process.
    pub entries: usize,
    /// Every so many-th entry of ours is without the lock. 0: none is.
    pub rogue: usize,
    /// True if the server knows who holds and who waits.
    pub has_names: bool,
    /// Returns the number of holders and waiters at the server.
    pub contenders: Box<dyn Fn() -> usize + Sync + 'a>,
}

impl<'a> Contest<'a> {
    /// Returns a contest in which each entry is alone.
    pub fn new(server: &'a dyn TestServer) -> Self {
        let contenders = Box::new(|| server.contenders("k"));
        Self { url: server.url(), rule: Rule::Alone, entries: entries(), rogue: 0, has_names: true, contenders }
    }

    /// Starts all processes while the lock is taken, lets them in, and returns what has come of it. `theirs` is called
    /// three times: with the folder, in which it runs its process, and with the name of the process there.
    ///
    /// # Panics
    /// If a process fails, or the two sides didn't wait for one another, or one process was passed over.
    pub fn run(&self, theirs: impl Fn(&Path, &str) + Sync) -> Outcome {
        let Self { url, rule, entries, rogue, contenders, .. } = self;
        let room = Room::new().unwrap();
        let first = Client::connect(url).unwrap();
        let whole = match *rule {
            Rule::Permits(limit) => Mode::Permits { count: limit, limit },
            _ => Mode::Exclusive,
        };
        let held = first.lock("k").ttl(LONG * 3).mode(whole).acquire().wait().unwrap();
        let all = contenders() + 2 * EACH;
        let begun = Instant::now();
        let said: Vec<String> = std::thread::scope(|scope| {
            let ours: Vec<_> = (0..EACH)
                .map(|n| {
                    let mut line = again("other_clients::one_of_ours");
                    line.env(JOB, format!("{url} ours-{n} {rule} {entries} {rogue}")).current_dir(room.path());
                    scope.spawn(move || done(&mut line))
                })
                .collect();
            for n in 0..EACH {
                let (room, theirs) = (room.path(), &theirs);
                scope.spawn(move || theirs(room, &format!("theirs-{n}")));
            }
            // A lock that keeps nobody out is for the judge.
            while contenders() < all && begun.elapsed() < LONG * 3 && !ours.iter().any(|one| one.is_finished()) {
                std::thread::sleep(ms(1));
            }
            released(&held);
            ours.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let outcome = room.outcome(*rule, 2 * EACH, *entries);
        println!("{:.1} s", begun.elapsed().as_secs_f64());
        self.check(&outcome, &said);
        assert_eq!(contenders(), 0, "something is left");
        outcome
    }

    /// Prints the figures of a contest, and checks them if no entry was without the lock.
    fn check(&self, outcome: &Outcome, said: &[String]) {
        let (mut they_wait, mut we_wait) = (0, 0);
        for said in said {
            let looks = said.split_once("> ").and_then(|(_, looks)| looks.lines().next()?.split_once(' '));
            let (they, we) = looks.expect("the looks of a process");
            they_wait += they.parse::<usize>().unwrap();
            we_wait += we.parse::<usize>().unwrap();
        }
        let (expected, overlaps, turns) = (outcome.expected(), outcome.overlaps(), outcome.turns());
        let (together, fullest, slowest) = (outcome.together(), outcome.fullest(), outcome.slowest());
        println!(
            "{expected} entries: {overlaps} overlaps, {turns} turns; {fullest} inside at most, {together} beside the other \
             side\n{} looks: {they_wait} saw one of them wait, {we_wait} one of ours behind them\n{slowest} entries of the \
             slowest when the first had its {}",
            expected / 2,
            self.entries,
        );
        if self.rogue > 0 {
            return;
        }
        outcome.judge().unwrap();
        let least = expected / 20;
        assert!(turns >= least, "they didn't contend");
        assert!(!self.has_names || they_wait.min(we_wait) >= least, "they didn't wait for one another");
        assert!(slowest >= self.entries / 4, "one was passed over");
        assert!(self.rule == Rule::Alone || together >= least, "the two sides were hardly inside together");
        if let Rule::Permits(limit) = self.rule {
            assert_eq!(fullest, limit as usize, "inside at most");
        }
    }
}

impl std::fmt::Debug for Contest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contest").field("url", &self.url).field("rule", &self.rule).finish_non_exhaustive()
    }
}
