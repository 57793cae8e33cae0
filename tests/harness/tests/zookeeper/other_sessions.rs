//! The nodes and the words of other sessions, and servers that answer in part: a node with the name of one's own, a session
//! that somebody ends, a leader without a majority.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use dlock::Kind;
use dlock_harness::backends::TestServer;
use dlock_harness::proxy::Proxy;
use zookeeper_client::{Acls, CreateMode};

use crate::common::{LONG, client, lock, ms, released, server, until};

/// Forwards connections, and tells of each piece that passes: from the client (true) or from the server. A piece is
/// forwarded if the answer is true. Otherwise its connection is closed.
fn tap(server: SocketAddr, judge: impl Fn(bool, &[u8]) -> bool + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
            for from_client in [true, false] {
                let (client, server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (from, to) = if from_client { (client, server) } else { (server, client) };
                let judge = judge.clone();
                std::thread::spawn(move || forward(from, to, |piece| judge(from_client, piece)));
            }
        }
    });
    address
}

fn forward(mut from: TcpStream, mut to: TcpStream, judge: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !judge(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Returns the random number in the name of the node that a piece creates for the lock `k`.
fn guid(piece: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(piece);
    (text.contains("1 dlock:") && text.contains("/locks/k/"))
        .then(|| text[..text.find("__lock__").unwrap()].rsplit('/').next().unwrap().to_owned())
}

#[test]
fn a_node_of_another_session_is_not_taken_for_ones_own() {
    let server = server();
    let address = TestServer::addr(&server);
    let (tell, told) = channel::<String>();
    let (done, is_done) = channel::<()>();
    let is_done = std::sync::Arc::new(std::sync::Mutex::new(is_done));
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    // The first creation is not forwarded, and the answer to the question for it has to wait.
    let through = tap(address, move |from_client, piece| {
        let Some(guid) = guid(piece).filter(|_| from_client) else { return true };
        if seen.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return true;
        }
        tell.send(guid).unwrap();
        is_done.lock().unwrap().recv().unwrap();
        false
    });
    let (ours, server) = (client(through), &server);
    std::thread::scope(|scope| {
        // Dropped at a panic, too: the other session ends then.
        let (end, ended): (_, Receiver<()>) = channel();
        let waiting = lock(&ours, "k", LONG).wait(ms(3000)).acquire();
        let waiting = scope.spawn(move || waiting.wait());
        let guid = told.recv_timeout(LONG).unwrap();
        let theirs = scope.spawn(move || {
            server.raw(async |raw| {
                let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
                raw.mkdir("/locks/k", &open).await?;
                let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
                raw.create(&format!("/locks/k/{guid}__lock__"), b"", &options).await?;
                done.send(()).unwrap();
                ended.recv().unwrap();
                Ok(())
            })
        });
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{error:?}");
        end.send(()).unwrap();
        theirs.join().unwrap().unwrap();
    });
    released(&lock(&ours, "k", LONG).acquire().wait().unwrap());
}

#[test]
fn a_session_that_is_ended_by_somebody_is_told() {
    let server = server();
    let address = TestServer::addr(&server);
    let (tell, told) = channel::<Vec<u8>>();
    let through = tap(address, move |from_client, piece| {
        // The first answer has the id and the password of the session: a length, the version, the timeout, both.
        if !from_client && piece.len() == 41 {
            let _ = tell.send(piece[12..40].to_vec());
        }
        true
    });
    let proxy = Proxy::new(through).unwrap();
    let ours = client(proxy.addr());
    let leases: Vec<_> =
        ["a", "b", "c"].iter().map(|key| lock(&ours, key, LONG * 3).acquire().wait().unwrap()).collect();
    let sessions: Vec<_> = told.try_iter().collect();
    assert!(!sessions.is_empty());
    // It can't take its session back meanwhile.
    proxy.refuse(true);
    proxy.cut();
    for session in sessions {
        let mut theirs = TcpStream::connect(address).unwrap();
        let message = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
        let begin =
            [&0_i32.to_be_bytes()[..], &0_i64.to_be_bytes(), &40_000_i32.to_be_bytes(), &session, &[0]].concat();
        theirs.write_all(&message(&begin)).unwrap();
        theirs.read_exact(&mut [0; 41]).unwrap();
        // The end of the session: a number, and the code of this request.
        theirs.write_all(&message(&[1_i32.to_be_bytes(), (-11_i32).to_be_bytes()].concat())).unwrap();
        let _ = theirs.read(&mut [0; 64]);
    }
    proxy.refuse(false);
    for lease in &leases {
        // Long before the next renewal.
        until("it is told", ms(5000), || !lease.is_held());
    }
    released(&lock(&client(address), "a", LONG).acquire().wait().unwrap());
}

#[test]
fn a_leader_without_a_majority_keeps_no_lease() {
    let server = server();
    // It continues sessions and answers what only asks, but no write, as a leader that has been replaced.
    let silent = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let deposed = silent.clone();
    let through = tap(TestServer::addr(&server), move |from_client, piece| {
        let writes = from_client && String::from_utf8_lossy(piece).contains("dlock-nothing-");
        !(writes && deposed.load(std::sync::atomic::Ordering::SeqCst))
    });
    let ours = client(through);
    let lease = lock(&ours, "k", ms(4000)).acquire().wait().unwrap();
    silent.store(true, std::sync::atomic::Ordering::SeqCst);
    until("it is told", ms(4500), || !lease.is_held());
}
