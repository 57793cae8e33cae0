//! A connection to the first of several addresses that answers (RFC 8305, Happy Eyeballs).

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use super::socket::{Socket, socket};
use crate::clock;

/// The time that an address has for itself before the next one is tried too.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the address that answers first: IPv6 and IPv4 in turn, each one when the one before has failed or was
/// silent for its head start.
pub(super) async fn dial(addresses: Vec<SocketAddr>) -> std::io::Result<Socket> {
    dial_by(addresses, socket).await
}

/// Connects as [`dial`] by this function, which connects to one address.
pub(super) async fn dial_by<T, E, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut rest = VecDeque::from(in_turn(addresses));
    let mut failed = E::from(Error::new(ErrorKind::NotFound, "the name has no address"));
    // The tries in progress end with this set.
    let mut tries = JoinSet::new();
    loop {
        if let Some(address) = rest.pop_front() {
            tries.spawn(connect(address));
        }
        let next = async {
            match rest.is_empty() {
                true => std::future::pending().await,
                false => clock::sleep(HEAD_START).await,
            }
        };
        tokio::select! {
            biased;
            made = tries.join_next() => match made {
                Some(Ok(Ok(socket))) => return Ok(socket),
                Some(Ok(Err(error))) => failed = error,
                Some(Err(error)) => failed = Error::other(error).into(),
                None => return Err(failed),
            },
            () = next => {}
        }
    }
}

/// Sorts the families in turn, that of the first address first; within each in the order of the resolver.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (ours, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [ours.next(), others.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use socket2::{Domain, Type};

    use super::*;

    /// Returns a listener that accepts no connection and refuses none, as silent as a host that doesn't exist.
    fn silent(host: [u8; 4]) -> (socket2::Socket, SocketAddr, Vec<socket2::Socket>) {
        let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((host, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let mut fill = Vec::new();
        loop {
            let full = TcpStream::connect_timeout(&addr, Duration::from_millis(100));
            match full {
                Ok(stream) => fill.push(stream.into()),
                Err(_) => return (listener, addr, fill),
            }
            assert!(fill.len() < 1000, "its backlog never gets full");
        }
    }

    fn peer(socket: &mut Socket) -> SocketAddr {
        socket.owner().peer_addr().unwrap()
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_doesnt_keep_from_the_next() {
        let (_first, silent, _fill) = silent([127, 0, 0, 2]);
        let (_second, addr) = listener();
        let made = tokio::time::timeout(Duration::from_secs(5), dial(vec![silent, addr])).await;
        assert_eq!(peer(&mut made.expect("the second answers").unwrap()), addr);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_at_once() {
        // Bound, so that nobody else gets the port, but not listening.
        let bound = |_| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            socket
        };
        let sockets: Vec<_> = (0..100).map(bound).collect();
        let refusing: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let (_last, addr) = listener();
        let all = refusing.iter().copied().chain([addr]).collect();
        // With a head start each it would be 25 s.
        let made = tokio::time::timeout(Duration::from_secs(10), dial(all)).await;
        assert_eq!(peer(&mut made.expect("refused addresses take no time").unwrap()), addr);
        let error = dial(refusing).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(dial(Vec::new()).await.map(|_| ()).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn families_come_in_turn() {
        let parse = |text: &str| text.split(' ').map(|one| one.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let sorted = in_turn(parse("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 2.2.2.2:1"));
        assert_eq!(sorted, parse("[::1]:1 1.1.1.1:1 [::2]:1 2.2.2.2:1 [::3]:1"));
        assert_eq!(in_turn(parse("1.1.1.1:1 [::1]:1")), parse("1.1.1.1:1 [::1]:1"));
    }
}
