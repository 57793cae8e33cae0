//! Eight processes of eight contenders each on one key: who comes first is served first, a release wakes one of them, and
//! nothing of it stays at the server.

use dlock_harness::crowd::{self, Crowd, patient};

use crate::common::{LONG, client, ms, released, requests, server, settled, until};

const PROCESSES: usize = 8;
const EACH: usize = 8;
/// How often each contender enters when all do so as fast as they can.
const TURNS: usize = 18;

#[test]
fn the_other_process() {
    crowd::serve(EACH);
}

/// All stand in line in this order, each before the next one comes; `clients` of each process.
fn crowd(clients: usize, arrivals: &[(usize, usize)]) {
    let server = server();
    let first = client(server.addr());
    let events = || server.figure("etcd_debugging_mvcc_events_total");
    let watchers = || server.figure("etcd_debugging_mvcc_watcher_total");
    let mut crowd = Crowd::start("many_contenders::the_other_process", &server.url(), PROCESSES, clients);
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
            Some(inside) => crowd.hand_over(inside, next),
            None => {
                released(&held);
                assert_eq!(crowd.hear(), (next.0, format!("granted {}", next.1)));
            }
        }
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
