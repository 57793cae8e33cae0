//! Eight processes of eight contenders each on one key: who comes first is served first, a release wakes one of them, and
//! nothing of it stays at the server.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use dlock::{Client, Lease, Lock};
use dlock_harness::backends::etcd::Etcd;

use crate::common::{LONG, again, client, cold, lock, ms, released, requests, server, settled, until};

/// For another process: where the lock is, and how many clients it has for its contenders.
const JOB: &str = "DLOCK_TEST_CROWD";
const PROCESSES: usize = 8;
const EACH: usize = 8;
/// How often each contender enters when all do so as fast as they can.
const TURNS: usize = 18;

/// One that is in no hurry: nobody looks by itself, or renews, while the test counts.
fn patient(client: &Client) -> Lock {
    lock(client, "k", LONG * 60).wait(LONG * 30)
}

/// The other process: says `waits N`, `granted N`, `released N` and `rushed CONTENDED`.
#[test]
fn the_other_process() {
    let Ok(job) = std::env::var(JOB) else { return };
    let (address, count) = job.split_once(' ').unwrap();
    let clients: Vec<_> = (0..count.parse().unwrap()).map(|_| cold(address)).collect();
    let client = |n: usize| &clients[n % clients.len()];
    let here = |client: &Client| {
        let all = client.contenders("k").wait().unwrap();
        all.iter().filter(|one| one.pid == Some(std::process::id())).count()
    };
    let leases: Arc<Mutex<HashMap<usize, Lease>>> = Arc::default();
    let mut begun = 0;
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (word, number) = line.split_once(' ').unwrap();
        let n: usize = number.parse().unwrap();
        match word {
            "begin" => {
                let leases = leases.clone();
                patient(client(n)).acquire().on_done(move |lease| {
                    leases.lock().unwrap().insert(n, lease.unwrap());
                    println!("> granted {n}");
                });
                begun += 1;
                until("it stands in line", LONG, || here(client(n)) == begun);
                println!("> waits {n}");
            }
            "release" => {
                let lease = leases.lock().unwrap().remove(&n).unwrap();
                released(&lease);
                println!("> released {n}");
            }
            "rush" => println!("> rushed {}", rush(client, n)),
            _ => panic!("{line:?}"),
        }
    }
}

/// All contenders of this process enter so often; how often somebody stood behind the one inside.
fn rush<'a>(client: impl Fn(usize) -> &'a Client, turns: usize) -> usize {
    let turn = |client: &Client| {
        let lease = patient(client).acquire().wait().unwrap();
        let queue = client.contenders("k").wait().unwrap();
        assert!(queue[0].held && queue[0].token.as_deref() == Some(&*lease.token()), "{queue:?}");
        released(&lease);
        usize::from(queue.len() > 1)
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..EACH)
            .map(|n| {
                let client = client(n);
                scope.spawn(move || (0..turns).map(|_| turn(client)).sum::<usize>())
            })
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    })
}

/// The others, and what they say, each with its number.
struct Crowd {
    others: Vec<(Child, ChildStdin)>,
    said: Receiver<(usize, String)>,
}

impl Crowd {
    fn start(server: &Etcd, clients: usize) -> Self {
        let (say, said) = channel();
        let others = (0..PROCESSES).map(|n| Self::other(server, clients, n, say.clone())).collect();
        Self { others, said }
    }

    fn other(server: &Etcd, clients: usize, number: usize, say: Sender<(usize, String)>) -> (Child, ChildStdin) {
        let mut line = again("many_contenders::the_other_process");
        line.env(JOB, format!("{} {clients}", server.addr())).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = line.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, words)) = line.split_once("> ") {
                    let _ = say.send((number, words.to_owned()));
                }
            }
        });
        (child, input)
    }

    fn tell(&mut self, process: usize, words: &str) {
        writeln!(self.others[process].1, "{words}").unwrap();
    }

    fn hear(&self) -> (usize, String) {
        self.said.recv_timeout(LONG * 12).expect("one of them says something")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for (child, _) in &mut self.others {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All stand in line in this order, each before the next one comes; `clients` of each process.
fn crowd(clients: usize, arrivals: &[(usize, usize)]) {
    let server = server();
    let first = client(server.addr());
    let events = || server.figure("etcd_debugging_mvcc_events_total");
    let watchers = || server.figure("etcd_debugging_mvcc_watcher_total");
    let mut crowd = Crowd::start(&server, clients);
    let held = patient(&first).acquire().wait().unwrap();

    for &(process, n) in arrivals {
        crowd.tell(process, &format!("begin {n}"));
        assert_eq!(crowd.hear(), (process, format!("waits {n}")));
    }
    // Each client's first stands in the queue by one, and looks again once it is told of what happens there.
    let queue = PROCESSES * clients;
    let (begun, told) = (settled(&server), events());
    let mut used = 0;
    let mut inside = None;
    for &next in arrivals {
        match inside {
            None => released(&held),
            Some((process, n)) => crowd.tell(process, &format!("release {n}")),
        }
        let mut heard = vec![crowd.hear()];
        if let Some((process, n)) = inside {
            heard.push(crowd.hear());
            heard.retain(|said| *said != (process, format!("released {n}")));
        }
        assert_eq!(heard, [(next.0, format!("granted {}", next.1))], "after {inside:?}");
        // The release alone: the one that it wakes has heard it. The next of the same client takes its place at the end.
        let behind = inside.is_some_and(|(process, n)| {
            let mut later = arrivals.iter().skip_while(|&&one| one != (process, n)).skip(1);
            later.any(|&(other, m)| other == process && m % clients == n % clients)
        });
        used += 1 + u64::from(behind);
        until("all of it was asked", LONG, || requests(&server) - begun >= used);
        assert_eq!(requests(&server) - begun, used, "requests for {next:?}");
        inside = Some(next);
    }
    let (process, n) = inside.unwrap();
    crowd.tell(process, &format!("release {n}"));
    assert_eq!(crowd.hear(), (process, format!("released {n}")));
    std::thread::sleep(ms(300));
    assert_eq!(requests(&server) - begun, used + 1, "nobody asks any more");
    println!("{} hand-overs: {used} requests, {} events to {queue} watchers", arrivals.len(), events() - told);

    (0..PROCESSES).for_each(|process| crowd.tell(process, &format!("rush {TURNS}")));
    let mut contended = 0;
    for _ in 0..PROCESSES {
        let (_, said) = crowd.hear();
        contended += said.strip_prefix("rushed ").unwrap().parse::<usize>().unwrap();
    }
    println!("{contended} of {} entries had somebody wait", arrivals.len() * TURNS);
    assert!(contended >= 1000, "they didn't contend");
    until("no watcher is left", LONG, || watchers() < 0.5);
}

#[test]
fn sixty_four_contenders_in_eight_processes_enter_in_their_order() {
    let mut arrivals: Vec<_> = (0..PROCESSES * EACH).map(|n| (n / EACH, n % EACH)).collect();
    fastrand::shuffle(&mut arrivals);
    crowd(EACH, &arrivals);
}

/// A process has one place in the queue, which goes on to the next of its own at the end: in turns they keep their order.
#[test]
fn sixty_four_contenders_with_eight_clients_enter_in_turns() {
    let arrivals: Vec<_> = (0..PROCESSES * EACH).map(|n| (n % PROCESSES, n / PROCESSES)).collect();
    crowd(1, &arrivals);
}
