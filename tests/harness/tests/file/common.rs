//! What the scenarios share: a directory, and other processes that lock in it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use dlock::{Client, Lease, ReleaseOutcome};
use tempfile::TempDir;

/// For another process: the directory.
const PLACE: &str = "DLOCK_TEST_PLACE";
/// How long anything may take that has no bound of its own.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn folder() -> TempDir {
    TempDir::new().unwrap()
}

pub(crate) fn client(dir: &Path) -> Client {
    Client::connect(&format!("file://{}", dir.display())).unwrap()
}

pub(crate) fn acquired(client: &Client, key: &str) -> Lease {
    client.lock(key).wait(LONG).acquire().wait().unwrap()
}

/// Acquires and releases; the fence.
pub(crate) fn pair(client: &Client, key: &str) -> u64 {
    let lease = acquired(client, key);
    let fence = lease.fence().unwrap();
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released);
    fence
}

/// The other process: reads `pair KEY`, `hold KEY`, `free` and answers by a fence, `ok`, or what failed.
#[test]
fn the_other_process() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let client = client(Path::new(&place));
    let mut held = None;
    println!("> ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (word, key) = line.split_once(' ').unwrap_or((&line, ""));
        let lock = || client.lock(key).wait(LONG).acquire().wait();
        let answer = match word {
            "pair" => lock().map(|lease| {
                let fence = lease.fence().unwrap();
                drop(lease.release().wait());
                fence.to_string()
            }),
            "hold" => lock().map(|lease| {
                let fence = lease.fence().unwrap();
                held = Some(lease);
                fence.to_string()
            }),
            "free" => held.take().unwrap().release().wait().map(|ended| format!("{ended:?}")),
            _ => panic!("{line:?}"),
        };
        println!("> {}", answer.unwrap_or_else(|error| format!("{:?}: {error}", error.kind())));
    }
}

/// Another process, which ends with this.
pub(crate) struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Other {
    pub(crate) fn start(dir: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        // By this name a user who may not enter the folder it is in can run it as well.
        let mut line = Command::new("/proc/self/exe");
        line.args(["--exact", "common::the_other_process", "--nocapture"]);
        line.env(PLACE, dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        prepare(&mut line);
        let mut child = line.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut other = Self { child, input, output };
        assert_eq!(other.hear(), "ready");
        other
    }

    pub(crate) fn ask(&mut self, words: &str) -> String {
        writeln!(self.input, "{words}").unwrap();
        self.hear()
    }

    /// Acquires and releases; the fence.
    pub(crate) fn pair(&mut self, key: &str) -> u64 {
        let answer = self.ask(&format!("pair {key}"));
        answer.parse().unwrap_or_else(|_| panic!("the other process has no fence for {key}: {answer}"))
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line).unwrap() == 0 {
                let status = self.child.wait().unwrap();
                panic!("the other process ended: {status}");
            }
            if let Some((_, words)) = line.split_once("> ") {
                return words.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
