//! An ensemble of several servers, with a proxy on each way from one member to another.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ZooKeeper;
use super::server::{TAKEN, TICK};
use crate::backends::Setup;
use crate::proxy::{Mode, Proxy};
use crate::server::process;

/// The time that an election may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running ensemble. Clients connect to the members without a proxy.
#[derive(Debug)]
pub struct Cluster {
    // The order of these fields is the order in which they are dropped.
    pub members: Vec<ZooKeeper>,
    ways: Vec<Way>,
}

/// A way from one member to another.
#[derive(Debug)]
struct Way {
    from: usize,
    to: usize,
    /// The way to the port of a leader.
    follow: Proxy,
    elect: Elect,
}

/// The way to the port for elections.
#[derive(Debug)]
enum Elect {
    /// To a member with a smaller number.
    Proxy(Proxy),
    /// To a member with a greater number.
    Bell(Bell),
}

/// A port that asks a member to call another one, which has called this port.
///
/// A member that is called for an election by one with a smaller number hangs up and calls back. It calls the address
/// that the caller names, which is the one without a proxy. A caller of an old version names none, so the bell calls like
/// that: then the member uses the address of its configuration.
#[derive(Debug)]
struct Bell {
    addr: SocketAddr,
    state: Arc<BellState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct BellState {
    is_silent: AtomicBool,
    is_over: AtomicBool,
}

impl Cluster {
    /// Starts so many members and waits until they serve.
    ///
    /// # Errors
    /// As for [`ZooKeeper::start`], and if a proxy can't be started.
    pub fn start(count: usize) -> Result<Self, String> {
        Self::ticking(count, TICK)
    }

    /// Starts so many members with this unit of time, and waits until they serve.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn ticking(count: usize, tick: Duration) -> Result<Self, String> {
        let mut tries = 5;
        loop {
            tries -= 1;
            match Self::form(count, tick) {
                // Another program may have taken a port.
                Err(error) if tries > 0 && error.contains(TAKEN) => {}
                formed => return formed,
            }
        }
    }

    fn form(count: usize, tick: Duration) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let port = || process::port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let real = (0..count).map(|_| Ok((port()?, port()?))).collect::<Result<Vec<_>, _>>().map_err(text)?;
        let (mut members, mut ways) = (Vec::new(), Vec::new());
        for from in 0..count {
            let mut lines = String::new();
            for (to, (follow, elect)) in real.iter().enumerate() {
                let (mut follow, mut elect) = (*follow, *elect);
                if to != from {
                    let way = Way::new(from, to, follow, elect).map_err(text)?;
                    (follow, elect) = way.addrs();
                    ways.push(way);
                }
                lines += &format!("server.{}={follow}:{}\n", number(to), elect.port());
            }
            let mut member = ZooKeeper::new(Setup::default(), tick)?;
            member.join(number(from), &lines)?;
            member.launch()?;
            members.push(member);
        }
        let mut cluster = Self { members, ways };
        cluster.served()?;
        Ok(cluster)
    }

    /// Waits until all members serve.
    ///
    /// # Errors
    /// If one of them doesn't, with the end of its log.
    pub fn served(&mut self) -> Result<(), String> {
        self.members.iter_mut().try_for_each(ZooKeeper::served)
    }

    /// Returns the index of the leader. Waits until exactly one member reports that it leads.
    ///
    /// # Errors
    /// If that doesn't happen.
    pub fn leader(&self) -> Result<usize, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let modes: Vec<_> = self.members.iter().map(ZooKeeper::mode).collect();
            let mut leading = (0..modes.len()).filter(|at| modes[*at].as_deref() == Some("leader"));
            if let (Some(leader), None) = (leading.next(), leading.next()) {
                return Ok(leader);
            }
            if Instant::now() >= end {
                return Err(format!("within {PATIENCE:?} there was not one leader: {modes:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the number of messages that a member has sent to the leader. Without requests these are its reports, which
    /// come every half tick.
    pub fn reports(&self, at: usize) -> u64 {
        self.ways.iter().filter(|way| way.from == at).map(|way| way.follow.counts().requests).sum()
    }

    /// Cuts a member off from the others: all that is under way is lost, and nobody is told. The others still reach each
    /// other, and clients still reach the member.
    pub fn isolate(&self, at: usize) {
        self.ways.iter().filter(|way| way.from == at || way.to == at).for_each(|way| way.lose(true));
    }

    /// Ends the isolation by [`isolate`](Self::isolate).
    pub fn rejoin(&self) {
        self.ways.iter().for_each(|way| way.lose(false));
    }
}

/// Returns a member's number in the ensemble. The first one is 1.
fn number(at: usize) -> u64 {
    at as u64 + 1
}

impl Way {
    fn new(from: usize, to: usize, follow: SocketAddr, elect: SocketAddr) -> std::io::Result<Self> {
        let elect =
            if to < from { Elect::Proxy(Proxy::new(elect)?) } else { Elect::Bell(Bell::new(number(from), elect)?) };
        let follow = Proxy::new(follow)?;
        // A follower may come before its leader listens. If it were accepted and cut then, it would begin an election.
        follow.patient(true);
        Ok(Self { from, to, follow, elect })
    }

    /// Returns the addresses for the member at the beginning of the way.
    fn addrs(&self) -> (SocketAddr, SocketAddr) {
        let elect = match &self.elect {
            Elect::Proxy(proxy) => proxy.addr(),
            Elect::Bell(bell) => bell.addr,
        };
        (self.follow.addr(), elect)
    }

    /// Loses everything on the way, or ends that.
    fn lose(&self, lose: bool) {
        let mut proxies = vec![&self.follow];
        match &self.elect {
            Elect::Proxy(proxy) => proxies.push(proxy),
            Elect::Bell(bell) => bell.state.is_silent.store(lose, Ordering::SeqCst),
        }
        for proxy in proxies {
            proxy.blackhole(lose);
            if lose {
                proxy.both(Mode::Drop);
            } else {
                // A connection that has lost bytes can't be used any more. Those that come now lose none.
                proxy.both(Mode::Hold);
                proxy.cut();
                proxy.both(Mode::Pass);
            }
        }
    }
}

impl Bell {
    /// Starts the bell for the member with this number, before this port of a member with a greater one.
    fn new(number: u64, elect: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (addr, state) = (listener.local_addr()?, Arc::new(BellState::default()));
        let shared = state.clone();
        let ring = move || {
            for caller in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                if caller.is_ok() && !shared.is_silent.load(Ordering::SeqCst) {
                    // A member that is down isn't called.
                    let _ = TcpStream::connect(elect).and_then(|mut call| call.write_all(&number.to_be_bytes()));
                }
            }
        };
        let thread = std::thread::Builder::new().name("bell".to_owned()).spawn(ring)?;
        Ok(Self { addr, state, thread: Some(thread) })
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // The call ends the wait for callers.
        if TcpStream::connect(self.addr).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}
