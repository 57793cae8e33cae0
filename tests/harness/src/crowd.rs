//! Other processes with many contenders of one key, which do what they are told line by line. Each is this program, run
//! again.

#![allow(clippy::print_stdout, reason = "how the processes talk")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use dlock::{Client, Lease, Lock};

use crate::backends::with_option;
use crate::scenario::{LONG, again, lock, next, released, until};

/// The variable of another process: the URL of the lock, and the number of clients for its contenders.
const JOB: &str = "DLOCK_TEST_CROWD";

/// Returns a lock in no hurry: nobody looks by itself, or renews, while a test counts.
pub fn patient(client: &Client) -> Lock {
    lock(client, "k", LONG * 60).wait(LONG * 30)
}

/// Works as the other process, if this is one. A test of the program has to call it, and nothing else. The words:
/// `begin N` lets contender N wait; the answers are `waits N` and later `granted N`. `release N` gives its lock back, with
/// the answer `released N`. `rush TURNS` lets all contenders enter so often, with the answer `rushed CONTENDED`.
///
/// # Panics
/// If the locks don't work.
pub fn serve(contenders: usize) {
    let Ok(job) = std::env::var(JOB) else { return };
    let (url, count) = job.split_once(' ').expect("a URL and a number");
    // Clients of equal configuration would be one contender.
    let connect = |_| Client::connect(&with_option(url, &format!("connect_timeout=5.{:06}", next()))).expect("a URL");
    let clients: Vec<_> = (0..count.parse().expect("a number")).map(connect).collect();
    let client = |n: usize| &clients[n % clients.len()];
    let here = |client: &Client| {
        let all = client.contenders("k").wait().expect("the server answers");
        all.iter().filter(|one| one.pid == Some(std::process::id())).count()
    };
    let leases: Arc<Mutex<HashMap<usize, Lease>>> = Arc::default();
    let mut begun = 0;
    for line in std::io::stdin().lines() {
        let line = line.expect("the parent writes lines");
        let (word, number) = line.split_once(' ').expect("a word and a number");
        let n: usize = number.parse().expect("a number");
        match word {
            "begin" => {
                let leases = leases.clone();
                patient(client(n)).acquire().on_done(move |lease| {
                    leases.lock().expect("no panic").insert(n, lease.expect("a lease"));
                    println!("> granted {n}");
                });
                begun += 1;
                until("it stands in line", LONG, || here(client(n)) == begun);
                println!("> waits {n}");
            }
            "release" => {
                let lease = leases.lock().expect("no panic").remove(&n).expect("it holds");
                released(&lease);
                println!("> released {n}");
            }
            "rush" => println!("> rushed {}", rush(client, contenders, n)),
            _ => panic!("{line:?}"),
        }
    }
}

/// All contenders of this process enter so often. Returns how often somebody waited behind the one inside.
fn rush<'a>(client: impl Fn(usize) -> &'a Client, contenders: usize, turns: usize) -> usize {
    let turn = |client: &Client| {
        let lease = patient(client).acquire().wait().expect("a lease");
        let queue = client.contenders("k").wait().expect("the server answers");
        assert!(queue[0].held && queue[0].token.as_deref() == Some(&*lease.token()), "{queue:?}");
        released(&lease);
        usize::from(queue.len() > 1)
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..contenders)
            .map(|n| {
                let client = client(n);
                scope.spawn(move || (0..turns).map(|_| turn(client)).sum::<usize>())
            })
            .collect();
        all.into_iter().map(|one| one.join().expect("no panic")).sum()
    })
}

/// The other processes, and what they say, each with its number. When it is dropped, they end.
pub struct Crowd {
    others: Vec<(Child, ChildStdin)>,
    said: Receiver<(usize, String)>,
}

impl Crowd {
    /// Starts so many processes with so many clients each. `test` is the test that calls [`serve`].
    ///
    /// # Panics
    /// If they don't start.
    pub fn start(test: &str, url: &str, processes: usize, clients: usize) -> Self {
        let (say, said) = channel();
        let others = (0..processes).map(|n| Self::other(test, url, clients, n, say.clone())).collect();
        Self { others, said }
    }

    fn other(
        test: &str,
        url: &str,
        clients: usize,
        number: usize,
        say: Sender<(usize, String)>,
    ) -> (Child, ChildStdin) {
        let mut line = again(test);
        line.env(JOB, format!("{url} {clients}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = line.spawn().expect("this program");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, words)) = line.split_once("> ") {
                    let _ = say.send((number, words.to_owned()));
                }
            }
        });
        (child, input)
    }

    /// Tells a process something.
    ///
    /// # Panics
    /// If it has ended.
    pub fn tell(&mut self, process: usize, words: &str) {
        writeln!(self.others[process].1, "{words}").expect("it listens");
    }

    /// Returns what a process says next, with its number.
    ///
    /// # Panics
    /// If none says anything.
    #[must_use]
    pub fn hear(&self) -> (usize, String) {
        self.said.recv_timeout(LONG * 12).expect("one of them says something")
    }

    /// Releases the lock of the one inside, and waits for the next one.
    ///
    /// # Panics
    /// If another one is next.
    pub fn hand_over(&mut self, inside: (usize, usize), next: (usize, usize)) {
        self.tell(inside.0, &format!("release {}", inside.1));
        let mut heard = vec![self.hear(), self.hear()];
        heard.retain(|said| *said != (inside.0, format!("released {}", inside.1)));
        assert_eq!(heard, [(next.0, format!("granted {}", next.1))], "after {inside:?}");
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
