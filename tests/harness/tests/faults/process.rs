//! What becomes of a lock when the process of its holder dies or is frozen. The other process is this one, run again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use dlock::{Lease, ReleaseOutcome};
use dlock_harness::backends::TestServer;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{LONG, On, SLACK, begin, lock, ms, released, until, until_contenders};

scenarios! {
    a_lock_whose_holder_is_killed_goes_on_within_its_ttl;
    a_waiter_that_is_killed_is_passed_over;
    a_holder_that_was_frozen_does_not_believe_it;
}

const URL: &str = "DLOCK_TEST_HOLDER";

/// Another process, which does what it is told line by line.
struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Other {
    fn start(server: &dyn TestServer) -> Self {
        let mut line = Command::new(std::env::current_exe().unwrap());
        line.args(["--exact", "process::the_other_process", "--nocapture"]);
        line.env(URL, server.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = line.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn ask(&mut self, line: &str) -> Vec<String> {
        writeln!(self.input, "{line}").unwrap();
        self.answer()
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

fn a_lock_whose_holder_is_killed_goes_on_within_its_ttl(on: On) {
    let (server, ttl) = (on.server(), on.ttl(ms(1000)));
    let client = on.client(server.addr());
    let mut other = Other::start(&*server);
    let fence: u64 = other.ask(&format!("acquire {}", ttl.as_millis()))[0].parse().unwrap();
    let waiting = lock(&client, "k", on.ttl(ms(900))).wait(on.end(ttl) + ms(1500)).acquire();
    let waiter = std::thread::spawn(move || waiting.wait().map(|lease| (Instant::now(), lease)));
    until_contenders(&*server, "k", 2);
    other.signal(Signal::KILL);
    let killed = Instant::now();
    let (entered, lease) = waiter.join().unwrap().expect("a waiter comes in");
    println!("a holder of a ttl of {ttl:?} was killed: the waiter came in after {:?}", entered - killed);
    assert!(entered - killed < on.end(ttl) + ms(500) + SLACK);
    assert!(lease.fence() > Some(fence));
    released(&lease);
}

fn a_waiter_that_is_killed_is_passed_over(on: On) {
    let server = on.server();
    let (a, b) = (on.client(server.addr()), on.client(server.addr()));
    let holder = lock(&a, "k", LONG).acquire().wait().unwrap();
    let mut other = Other::start(&*server);
    // A place that goes with its ttl is to go soon.
    let ttl = if server.connections().is_some() { LONG * 3 } else { on.ttl(ms(1000)) };
    other.ask(&format!("wait {}", ttl.as_millis()));
    until_contenders(&*server, "k", 2);
    let waiter = begin(&lock(&b, "k", LONG));
    until_contenders(&*server, "k", 3);
    let connections = server.connections();
    other.signal(Signal::KILL);
    until("the server knows", LONG, || connections.is_none() || server.connections() < connections);
    released(&holder);
    let lease = waiter.join().unwrap().unwrap();
    assert!(server.is_held_by("k", &lease) && server.contenders("k") == 1);
    released(&lease);
}

fn a_holder_that_was_frozen_does_not_believe_it(on: On) {
    let server = on.server();
    let client = on.client(server.addr());
    let mut other = Other::start(&*server);
    let fence: u64 = other.ask(&format!("acquire {}", on.ttl(ms(500)).as_millis()))[0].parse().unwrap();
    assert_eq!(other.ask("look -"), ["looks"]);
    other.signal(Signal::STOP);
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    assert!(lease.fence() > Some(fence));
    other.signal(Signal::CONT);
    let [believed, valid, kind] = <[String; 3]>::try_from(other.answer()).unwrap();
    assert_eq!((&*believed, &*valid, &*kind), ("0", "0ns", "Lost"), "believed after its end, valid for, kind");
    assert_eq!(other.ask("release -"), ["Lost"]);
    assert!(server.is_held_by("k", &lease));
    until_contenders(&*server, "k", 1);
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released);
}
