//! Permits: claims whose requests have no answer, and nodes that another program deletes.

use std::time::Duration;

use dlock::{Client, Lease, Lock, Mode};
use dlock_harness::backends::TestServer;
use dlock_harness::proxy::{Action, Direction, Proxy};

use crate::common::{LONG, begin, client, lock, ms, released, server, until};

fn permit(client: &Client, limit: u32) -> Lock {
    lock(client, "k", LONG * 3).mode(Mode::Permits { count: 1, limit })
}

fn slots(leases: &[&Lease]) -> Vec<u32> {
    let mut slots: Vec<_> = leases.iter().flat_map(|lease| lease.slots().to_vec()).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn slots_that_were_noted_without_an_answer_are_had() {
    let server = server();
    let address = TestServer::addr(&server);
    let proxy = Proxy::new(address).unwrap();
    let (holder, first, second) = (client(address), client(proxy.addr()), client(address));
    for limit in [1, 2] {
        let held: Vec<_> = (0..limit).map(|_| permit(&holder, limit).acquire().wait().unwrap()).collect();
        let one = begin(&permit(&first, limit));
        until("the first has its place", LONG, || server.left_over().len() == held.len() + 2);
        let two = begin(&permit(&second, limit));
        until("the second has its turn", LONG, || server.left_over().len() == held.len() + 3);
        // The first request that names a slot.
        let rule = proxy.rule(Direction::ToServer, "0 1 dlock:", 1..=1, Action::CutAfterForward);
        released(&held[0]);
        let one = one.join().unwrap().unwrap();
        assert_eq!(rule.fired(), 1, "the fault was not injected");
        for other in &held[1..] {
            released(other);
        }
        if limit == 1 {
            released(&one);
            released(&two.join().unwrap().unwrap());
        } else {
            let two = two.join().unwrap().unwrap();
            assert_eq!(slots(&[&one, &two]), [0, 1], "each has its own");
            released(&one);
            released(&two);
        }
        assert_eq!(server.left_over(), [""; 0]);
    }
}

#[test]
fn a_turn_that_another_program_deletes_holds_up_nobody() {
    let server = server();
    let address = TestServer::addr(&server);
    let [holder, first, second] = [client(address), client(address), client(address)];
    let held = permit(&holder, 1).acquire().wait().unwrap();
    let one = begin(&permit(&first, 1));
    until("the first has its place", LONG, || server.left_over().len() == 3);
    let two = begin(&permit(&second, 1));
    until("the second has its turn", LONG, || server.left_over().len() == 4);
    let turns = server.contenders_of("/locks/k-__lock__");
    server.raw(async |raw| raw.delete(&turns[0].path, None).await).unwrap();
    std::thread::sleep(ms(200));
    released(&held);
    for waiting in [one, two] {
        // Whichever comes first: it gives the permit back for the other.
        let lease = std::thread::spawn(move || {
            let lease = waiting.join().unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(50));
            released(&lease);
        });
        drop(lease);
    }
    until("both had it", LONG * 2, || server.left_over().is_empty());
}
