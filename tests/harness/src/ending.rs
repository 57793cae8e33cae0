//! A process that holds and waits, and then ends. It is the calling test program again, as one of its tests.

#![allow(clippy::print_stdout, reason = "how the two processes talk")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use dlock::{Client, Kind};

const URL: &str = "DLOCK_TEST_ENDS";
const WAITERS: usize = 4;
const READY: &str = "> ready";

/// The key that the other process holds, and waits for as well.
pub const OWN: &str = "own";
/// The key that the other process holds with no renewal.
pub const ONCE: &str = "once";
/// The key that the other process waits for, and this process holds.
pub const THEIRS: &str = "theirs";

/// The other process, once it has begun to wait.
pub struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Other {
    /// Starts the other process as this test, which calls [`as_the_other`].
    ///
    /// # Panics
    /// If the process doesn't start.
    pub fn start(test: &str, url: &str) -> Self {
        let mut line = Command::new(std::env::current_exe().expect("a program"));
        line.args(["--exact", test, "--nocapture"]).env(URL, url).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = line.spawn().expect("a process");
        let input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while line.trim_end() != READY {
            line.clear();
            assert!(output.read_line(&mut line).expect("its output") > 0, "the other process has ended");
        }
        Self { child, input, output }
    }

    /// Ends the other process in this way: `exit`, or `shutdown` first. Returns the time that it took, and the output.
    ///
    /// # Panics
    /// If the process ends in another way.
    pub fn end(mut self, how: &str) -> (Duration, String) {
        let begun = Instant::now();
        writeln!(self.input, "{how}").expect("it reads");
        let mut said = String::new();
        self.output.read_to_string(&mut said).expect("its output");
        assert!(self.child.wait().expect("a child").success(), "{said}");
        (begun.elapsed(), said)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the other process and never returns there. Does nothing in this process.
///
/// # Panics
/// If something is not as it must be.
pub fn as_the_other() {
    let Ok(url) = std::env::var(URL) else { return };
    let client = Client::connect(&url).expect("a client");
    let ttl = Duration::from_secs(60);
    let own = client.lock(OWN).ttl(ttl).acquire().wait().expect("a lease");
    let once = client.lock(ONCE).ttl(ttl).auto_renew(false).acquire().wait().expect("a lease");
    let waiter = |key: &'static str| {
        let lock = client.lock(key).ttl(ttl);
        std::thread::spawn(move || {
            let kind = lock.acquire().wait().map_err(|error| error.kind());
            println!("> came back: {kind:?}");
            kind.err()
        })
    };
    let waiters: Vec<_> = [OWN, THEIRS].into_iter().cycle().take(2 * WAITERS).map(waiter).collect();
    while client.query().expect("a list").iter().filter(|(_, held)| !held).count() < 2 * WAITERS {
        std::thread::yield_now();
    }
    println!("{READY}");
    let mut how = String::new();
    std::io::stdin().read_line(&mut how).expect("a word");
    if how.trim() == "shutdown" {
        assert!(dlock::shutdown(Duration::from_secs(5)), "all is confirmed");
        let kinds: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().expect("no panic")).collect();
        assert!(kinds.iter().all(|kind| *kind == Some(Kind::Invalid)), "{kinds:?}");
        assert_eq!([&own, &once].map(|lease| lease.check().unwrap_err().kind()), [Kind::Lost; 2]);
        assert_eq!(client.lock("k").try_acquire().wait().unwrap_err().kind(), Kind::Invalid);
        assert_eq!(
            Client::connect(&url).expect("no I/O").lock("k").acquire().wait().unwrap_err().kind(),
            Kind::Invalid
        );
    }
    std::process::exit(0);
}
