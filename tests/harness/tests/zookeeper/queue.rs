//! The queue: sixty-four contenders, each of another session, and many waiters on a connection that is cut.

use std::sync::mpsc::channel;

use dlock_harness::backends::TestServer;
use dlock_harness::crowd::{self, Crowd, patient};
use dlock_harness::proxy::Proxy;

use crate::common::{LONG, acquired, begin, client, lock, ms, released, server, until, until_contenders};

const CONTENDERS: usize = 64;
const PROCESSES: usize = 8;

#[test]
fn a_release_wakes_one_of_sixty_four_and_the_first_comes_first() {
    let server = server();
    let address = TestServer::addr(&server);
    let holder = client(address);
    let mut lease = acquired(&holder, "k");
    let (told, tells) = channel();
    let clients: Vec<_> = (0..CONTENDERS).map(|_| client(address)).collect();
    for (n, client) in clients.iter().enumerate() {
        let told = told.clone();
        let waiting = lock(client, "k", LONG * 6).wait(LONG * 6).acquire();
        waiting.on_done(move |lease| drop(told.send((n, lease.unwrap()))));
        until_contenders(&server, "k", n + 2);
    }
    let before = server.requests();
    for n in 0..CONTENDERS {
        released(&lease);
        let (next, granted) = tells.recv_timeout(LONG).unwrap();
        assert_eq!(next, n, "first come, first served");
        assert!(granted.fence() > lease.fence());
        lease = granted;
    }
    // The deletion of the node, and the list that the next one reads. Whoever asks for the figure asks, too.
    let asked = server.requests() - before;
    println!("{asked} requests for {CONTENDERS} releases");
    assert!(asked <= 2 * CONTENDERS as u64 + 20, "{asked} requests for {CONTENDERS} releases");
    released(&lease);
    assert_eq!(server.left_over(), [""; 0]);
}

#[test]
fn the_other_process() {
    crowd::serve(CONTENDERS / PROCESSES);
}

#[test]
fn sixty_four_contenders_of_eight_processes_enter_in_their_order() {
    let server = server();
    let mut arrivals: Vec<_> = (0..CONTENDERS).map(|n| (n % PROCESSES, n / PROCESSES)).collect();
    fastrand::shuffle(&mut arrivals);
    let holder = client(TestServer::addr(&server));
    let lease = patient(&holder).acquire().wait().unwrap();
    let url = TestServer::url(&server);
    let mut crowd = Crowd::start("queue::the_other_process", &url, PROCESSES, CONTENDERS / PROCESSES);
    for &(process, n) in &arrivals {
        crowd.tell(process, &format!("begin {n}"));
        assert_eq!(crowd.hear(), (process, format!("waits {n}")));
    }
    let before = server.requests();
    released(&lease);
    assert_eq!(crowd.hear(), (arrivals[0].0, format!("granted {}", arrivals[0].1)));
    arrivals.windows(2).for_each(|pair| crowd.hand_over(pair[0], pair[1]));
    let asked = server.requests() - before;
    println!("{asked} requests for {CONTENDERS} releases");
    assert!(asked <= 2 * CONTENDERS as u64 + 20, "{asked} requests for {CONTENDERS} releases");
    let (process, n) = arrivals[CONTENDERS - 1];
    crowd.tell(process, &format!("release {n}"));
    assert_eq!(crowd.hear(), (process, format!("released {n}")));
    assert_eq!(server.left_over(), [""; 0]);
}

#[test]
fn many_waiters_of_one_connection_wait_again_after_a_cut() {
    let server = server();
    let proxy = Proxy::new(TestServer::addr(&server)).unwrap();
    let (holder, waiter) = (client(TestServer::addr(&server)), client(proxy.addr()));
    let names: Vec<_> = (0..500).map(|n| format!("k{n}")).collect();
    let held: Vec<_> = names.iter().map(|name| acquired(&holder, name)).collect();
    let waiting: Vec<_> = names.iter().map(|name| begin(&lock(&waiter, name, LONG * 6))).collect();
    until("all wait", LONG, || server.left_over().len() == 2 * names.len());
    assert!(proxy.cut() > 0, "the fault was not injected");
    std::thread::sleep(ms(500));
    held.iter().for_each(released);
    for waiting in waiting {
        released(&waiting.join().unwrap().unwrap());
    }
    assert_eq!(server.left_over(), [""; 0]);
}
