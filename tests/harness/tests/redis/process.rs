//! What becomes of a lock when the process of its holder dies or is frozen. The other process is this one, run again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use dlock::{Lease, ReleaseOutcome};
use dlock_harness::backends::redis::Redis;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{LONG, SLACK, client, lock, ms, owner, queued, released, server, until, until_queued};

const URL: &str = "DLOCK_TEST_HOLDER";

/// Another process, which does what it is told line by line.
struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Other {
    fn start(server: &Redis) -> Self {
        let mut line = Command::new(std::env::current_exe().unwrap());
        line.args(["--exact", "process::the_other_process", "--nocapture"]);
        line.env(URL, server.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = line.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn ask(&mut self, line: &str) -> Vec<String> {
        self.tell(line);
        self.answer()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn answer(&mut self) -> Vec<String> {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the other process has ended");
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.split_whitespace().map(str::to_owned).collect();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_other_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let client = dlock::Client::connect(&url).unwrap();
    let mut lease: Option<Lease> = None;
    for line in std::io::stdin().lines() {
        let answer = match (line.unwrap().split_once(' '), &lease) {
            (Some(("acquire", ttl)), _) => {
                let got = lock(&client, "k", ms(ttl.parse().unwrap())).acquire().wait().unwrap();
                let answer = format!("{} {}", got.fence().unwrap(), got.token());
                lease = Some(got);
                answer
            }
            (Some(("wait", ttl)), _) => {
                let waiting = lock(&client, "k", ms(ttl.parse().unwrap())).wait(LONG * 6).acquire();
                waiting.on_done(drop);
                "waits".to_owned()
            }
            (Some(("look", _)), Some(lease)) => {
                println!("> looks");
                look(lease)
            }
            (Some(("release", _)), Some(lease)) => format!("{:?}", lease.release().wait().unwrap()),
            other => panic!("{other:?}"),
        };
        println!("> {answer}");
    }
}

/// Looks without a pause, until it is lost: the first look after a freeze comes before anybody else has noticed.
fn look(lease: &Lease) -> String {
    let mut believed = 0;
    loop {
        let end = lease.valid_until();
        let over = end.passed();
        believed += u32::from(over && !lease.valid_for().is_zero());
        let over = end.passed();
        match lease.check() {
            Ok(()) => believed += u32::from(over),
            Err(error) => return format!("{believed} {:?} {:?}", lease.valid_for(), error.kind()),
        }
    }
}

#[test]
fn a_lock_whose_holder_is_killed_goes_on_within_its_ttl() {
    let server = server();
    let client = client(server.addr());
    let mut other = Other::start(&server);
    let fence: u64 = other.ask("acquire 1000")[0].parse().unwrap();
    let waiting = lock(&client, "k", ms(900)).wait(ms(2500)).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().map(|lease| (Instant::now(), lease)));
    until_queued(&server, "k", 1);
    other.signal(Signal::KILL);
    let killed = Instant::now();
    let (entered, lease) = waiter.join().unwrap().expect("a waiter comes in");
    println!("a holder of a ttl of 1 s was killed: the waiter came in after {:?}", entered - killed);
    assert!(entered - killed < ms(1500) + SLACK);
    assert!(lease.fence() > Some(fence));
    released(&lease);
}

#[test]
fn a_waiter_that_is_killed_is_passed_over() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let mut other = Other::start(&server);
    other.ask("wait 30000");
    until_queued(&server, "k", 1);
    let waiting = lock(&b, "k", LONG).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().unwrap());
    until_queued(&server, "k", 2);
    let connections = crate::common::connected(&server);
    other.signal(Signal::KILL);
    until("the server knows", LONG, || crate::common::connected(&server) < connections);
    released(&holder);
    let lease = waiter.join().unwrap();
    assert_eq!((owner(&server, "k"), queued(&server, "k")), (Some(lease.token()), 0));
    released(&lease);
}

#[test]
fn a_holder_that_was_frozen_does_not_believe_it() {
    let server = server();
    let client = client(server.addr());
    let mut other = Other::start(&server);
    let fence: u64 = other.ask("acquire 500")[0].parse().unwrap();
    assert_eq!(other.ask("look -"), ["looks"]);
    other.signal(Signal::STOP);
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    assert!(lease.fence() > Some(fence));
    other.signal(Signal::CONT);
    let [believed, valid, kind] = <[String; 3]>::try_from(other.answer()).unwrap();
    assert_eq!((&*believed, &*valid, &*kind), ("0", "0ns", "Lost"), "believed after its end, valid for, kind");
    assert_eq!(other.ask("release -"), ["Lost"]);
    assert_eq!(owner(&server, "k"), Some(lease.token()));
    until("nothing is left of it in the queue", LONG, || queued(&server, "k") == 0);
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released);
}
