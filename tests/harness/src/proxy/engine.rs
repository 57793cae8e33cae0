//! The proxy's thread: one loop around poll, which owns every socket. Only a socket without another owner can be reset.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::conn::{BOTH, Conn, Fate, Terms};
use super::rule::{Entry, fire_with};
use super::{Counts, Direction, Mode};

pub(super) type Command = Box<dyn FnOnce(&mut Engine) + Send>;

/// The maximum time for which an upstream that doesn't answer stops all connections.
const CONNECT: Duration = Duration::from_secs(1);
/// The time for which a connection waits for an upstream that doesn't listen yet, and the pause between two tries.
const LISTENS: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Engine {
    addr: SocketAddr,
    door: Door,
    conns: Vec<Conn>,
    modes: [Mode; 2],
    pub(super) upstream: SocketAddr,
    pub(super) blackhole: bool,
    pub(super) patient: bool,
    pub(super) rules: Vec<Entry>,
    pub(super) counts: Counts,
}

#[derive(Debug)]
enum Door {
    Open(TcpListener),
    /// A bound socket that doesn't listen. Connections are refused, and no other program gets the port.
    Shut {
        _bound: Option<OwnedFd>,
    },
}

impl Engine {
    pub(super) fn new(upstream: SocketAddr) -> io::Result<Self> {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            addr: listener.local_addr()?,
            door: Door::Open(listener),
            conns: Vec::new(),
            modes: [Mode::Pass; 2],
            upstream,
            blackhole: false,
            patient: false,
            rules: Vec::new(),
            counts: Counts::default(),
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn set(&mut self, direction: Direction, mode: Mode) {
        self.modes[direction as usize] = mode;
        if mode == Mode::Drop {
            self.conns.iter_mut().for_each(|conn| conn.lose(direction));
        }
    }

    pub(super) fn cut(&mut self) -> usize {
        let live = self.connections();
        self.conns.drain(..).for_each(reset);
        live
    }

    pub(super) fn refuse(&mut self, refuse: bool) -> io::Result<()> {
        let shut = matches!(self.door, Door::Shut { .. });
        if refuse && !shut {
            self.door = Door::Shut { _bound: None };
            self.door = Door::Shut { _bound: Some(bind(self.addr)?) };
        } else if !refuse && shut {
            self.door = Door::Shut { _bound: None };
            self.door = Door::Open(listen(self.addr)?);
        }
        Ok(())
    }

    pub(super) fn release_held(&mut self) {
        self.conns.iter_mut().for_each(Conn::release);
    }

    pub(super) fn connections(&self) -> usize {
        self.conns.iter().filter(|conn| conn.is_live()).count()
    }

    /// Runs the loop until the proxy is dropped.
    pub(super) fn run(mut self, commands: &Receiver<Command>, woken: &UnixStream) {
        loop {
            loop {
                match commands.try_recv() {
                    Ok(command) => command(&mut self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.each(|_, conn, terms| {
                let first = conn.send(Direction::ToServer, terms);
                if let Fate::Keep = first { conn.send(Direction::ToClient, terms) } else { first }
            });
            let ready = self.wait(woken);
            // Each wake-up is a byte. Its sender has left a command before.
            while matches!(io::Read::read(&mut &*woken, &mut [0; 64]), Ok(1..)) {}
            self.each(|at, conn, terms| {
                for direction in BOTH {
                    if ready.contains(&(at, direction)) {
                        let fate = conn.receive(direction, terms);
                        if !matches!(fate, Fate::Keep) {
                            return fate;
                        }
                    }
                }
                Fate::Keep
            });
            self.accept();
        }
    }

    /// Calls `act` for each connection, and carries out the resulting fate.
    fn each(&mut self, mut act: impl FnMut(usize, &mut Conn, &mut Terms<'_>) -> Fate) {
        let now = Instant::now();
        let mut kept = Vec::with_capacity(self.conns.len());
        for (at, mut conn) in self.conns.drain(..).enumerate() {
            let mut terms = Terms { modes: self.modes, rules: &mut self.rules, counts: &mut self.counts, now };
            match act(at, &mut conn, &mut terms) {
                Fate::Keep => kept.push(conn),
                Fate::Close => drop(conn),
                Fate::Cut(rules) => fire_with(&rules, || reset(conn)),
            }
        }
        self.conns = kept;
    }

    /// Waits for bytes, connections, commands or the time of a delayed chunk. Returns the connections that can be read,
    /// by their index, with the direction.
    fn wait(&self, woken: &UnixStream) -> Vec<(usize, Direction)> {
        let now = Instant::now();
        let mut fds = vec![PollFd::new(woken, PollFlags::IN)];
        if let Door::Open(listener) = &self.door {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        let (doors, mut places, mut next) = (fds.len(), Vec::new(), None::<Instant>);
        for (at, conn) in self.conns.iter().enumerate() {
            for (direction, back) in
                [(Direction::ToServer, Direction::ToClient), (Direction::ToClient, Direction::ToServer)]
            {
                let Some(stream) = conn.source(direction) else { continue };
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, conn.wants(direction));
                match conn.due(back, self.modes[back as usize]) {
                    Some(due) if due > now => next = Some(next.map_or(due, |next| next.min(due))),
                    Some(_) => flags.insert(PollFlags::OUT),
                    None => {}
                }
                // `poll` would report a connection that has ended even if nothing is wanted from it.
                if !flags.is_empty() {
                    fds.push(PollFd::new(stream, flags));
                    places.push((at, direction));
                }
            }
        }
        let timeout = next.map(|next| {
            let time = next - now;
            Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos().into() }
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let readable = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        let ready = fds[doors..].iter().zip(&places).filter(|(fd, _)| readable(fd));
        ready.map(|(_, place)| *place).filter(|(at, direction)| self.conns[*at].wants(*direction)).collect()
    }

    fn accept(&mut self) {
        while let Door::Open(listener) = &self.door
            && let Ok((client, _)) = listener.accept()
        {
            self.counts.opened += 1;
            let server = (!self.blackhole).then(|| self.connect());
            match server.transpose() {
                Ok(server) => self.conns.extend(Conn::new(client, server)),
                Err(_) => reset_stream(client),
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let end = Instant::now() + LISTENS;
        loop {
            match TcpStream::connect_timeout(&self.upstream, CONNECT) {
                Err(error)
                    if self.patient && error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < end =>
                {
                    std::thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    Ok(socket)
}

fn reset(conn: Conn) {
    conn.into_streams().for_each(reset_stream);
}

fn reset_stream(stream: TcpStream) {
    // A child process between fork and exec may have this socket too. Then closing the socket would do nothing yet.
    let _ =
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).and_then(|()| rustix::net::connect_unspec(&stream));
}
