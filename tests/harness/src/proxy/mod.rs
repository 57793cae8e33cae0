//! A TCP proxy on 127.0.0.1 that loses, holds, delays and cuts what goes through it.
//!
//! ```text
//! let proxy = Proxy::new(server.addr())?;               // clients connect to proxy.addr()
//! proxy.set(ToServer | ToClient, Pass | Drop | Hold | Delay(time) | Fragment(bytes)); proxy.both(mode);
//! proxy.cut() -> how many; proxy.refuse(bool); proxy.blackhole(bool); proxy.patient(bool);
//! proxy.set_upstream(addr);
//! proxy.connections() -> live ones; proxy.counts() -> Counts { opened, requests, replies, to_server, to_client };
//! let rule = proxy.rule(ToServer, "EVALSHA", 2..=2, Action::CutAfterForward);   // the second request with that word
//! rule.fired(); rule.wait_fired(1, timeout) -> bool; proxy.release_held(); proxy.clear_rules();
//! ```
//!
//! Every call has taken effect when it returns: it applies to all bytes that a peer sends afterwards.
//!
//! One thread of its own does everything, so nothing here depends on the runtime under test. If the first byte of a
//! connection is `*`, its protocol is Redis'. Then the proxy forwards whole requests and replies, and a rule knows the
//! reply to its request. In other protocols the bytes of one read are a request or a reply, and the next reply is the
//! reply to a request.

mod conn;
mod engine;
mod pipe;
mod rule;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use self::engine::{Command, Engine};
pub use self::rule::Rule;

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// The treatment of all bytes of one direction, and of the end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    Pass,
    /// Bytes are lost, also those that are still held or delayed. Until this mode ends, the end of a stream isn't seen
    /// either.
    Drop,
    /// Bytes are kept, and delivered late, when the mode changes.
    Hold,
    /// Each chunk is delivered so much later, in order.
    Delay(Duration),
    /// At most so many bytes are delivered at a time, in segments of their own.
    Fragment(usize),
}

/// The action of a rule for a request or reply with its pattern. Actions that wait for a reply are for requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The rule only counts.
    Signal,
    /// The proxy resets both sides, and doesn't forward the request or reply.
    CutBefore,
    /// The proxy forwards the request, and resets both sides instead of forwarding the reply. The request is applied,
    /// and its reply is lost.
    CutAfterForward,
    /// The proxy forwards the request, and forwards neither the reply nor anything later to this client.
    DropReplyAfterForward,
    /// The proxy keeps the request and all later ones of this connection until [`Proxy::release_held`]. It keeps them
    /// also if the client goes away in the meantime. So the request arrives late.
    HoldRequest,
    /// The proxy delivers the reply so much later, and later replies after it in order. In a rule for replies, it
    /// delays the reply with the pattern.
    DelayReply(Duration),
}

/// The counts of a proxy so far, of delivered and undelivered bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of clients' connections.
    pub opened: u64,
    pub requests: u64,
    /// The number of replies, without the messages that the server sends without a request.
    pub replies: u64,
    /// The number of bytes from clients.
    pub to_server: u64,
    /// The number of bytes from the server.
    pub to_client: u64,
}

/// A proxy. When it is dropped, all its connections are closed and its thread ends.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    commands: Option<Sender<Command>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy on a free port.
    ///
    /// # Errors
    /// If there is no port, descriptor or thread for the proxy.
    pub fn new(upstream: SocketAddr) -> io::Result<Self> {
        let engine = Engine::new(upstream)?;
        let addr = engine.addr();
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (commands, told) = channel();
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || engine.run(&told, &woken))?;
        Ok(Self { addr, commands: Some(commands), wake, thread: Some(thread) })
    }

    /// Returns the address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the port of [`addr`](Self::addr).
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Sets the address to which new connections go.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.tell(move |engine| engine.upstream = upstream);
    }

    /// Changes the mode of one direction, for all connections.
    ///
    /// # Panics
    /// If fragments have no bytes.
    pub fn set(&self, direction: Direction, mode: Mode) {
        assert!(mode != Mode::Fragment(0), "a fragment has at least one byte");
        self.tell(move |engine| engine.set(direction, mode));
    }

    /// Changes the mode of both directions.
    pub fn both(&self, mode: Mode) {
        self.set(Direction::ToServer, mode);
        self.set(Direction::ToClient, mode);
    }

    /// Resets both sides of every connection. Returns the number of connections.
    pub fn cut(&self) -> usize {
        self.tell(Engine::cut)
    }

    /// Sets whether connections are refused, as if no program listened here. Existing connections stay.
    ///
    /// # Panics
    /// If another program got the port in the meantime.
    pub fn refuse(&self, refuse: bool) {
        self.tell(move |engine| engine.refuse(refuse)).expect("the proxy's port is taken");
    }

    /// Sets whether connections from now on are accepted and then get nothing.
    pub fn blackhole(&self, blackhole: bool) {
        self.tell(move |engine| engine.blackhole = blackhole);
    }

    /// Sets whether a connection waits up to 3 s for a server that doesn't listen yet. The client can't see that, and would
    /// try again only if it were refused.
    pub fn patient(&self, patient: bool) {
        self.tell(move |engine| engine.patient = patient);
    }

    /// Forwards the requests that [`Action::HoldRequest`] keeps.
    pub fn release_held(&self) {
        self.tell(Engine::release_held);
    }

    /// Returns the number of connections that neither side has ended.
    pub fn connections(&self) -> usize {
        self.tell(|engine| engine.connections())
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> Counts {
        self.tell(|engine| engine.counts)
    }

    /// Makes a rule: applies `action` to requests or replies with the pattern. `which` selects some of them, counted
    /// from 1 over all connections: `..`, `3..`, `2..=2`.
    ///
    /// In Redis' protocol a request counts once, even if it has the pattern several times. In other protocols each
    /// occurrence counts, also one that came in two parts. Then the action begins with the last part.
    ///
    /// # Panics
    /// If the pattern is empty, or an action for requests is used in the other direction.
    pub fn rule(
        &self,
        direction: Direction,
        pattern: impl AsRef<[u8]>,
        which: impl RangeBounds<u64>,
        action: Action,
    ) -> Rule {
        let requests = [Action::CutAfterForward, Action::DropReplyAfterForward, Action::HoldRequest];
        assert!(direction == Direction::ToServer || !requests.contains(&action), "{action:?} is for requests");
        assert!(!pattern.as_ref().is_empty(), "every stream has an empty pattern");
        let (rule, entry) = rule::make(direction, pattern.as_ref(), which, action);
        self.tell(move |engine| engine.rules.push(entry));
        rule
    }

    /// Removes all rules. Requests that they hold and replies that they wait for stay as they are.
    pub fn clear_rules(&self) {
        self.tell(|engine| engine.rules.clear());
    }

    fn tell<R: Send + 'static>(&self, act: impl FnOnce(&mut Engine) -> R + Send + 'static) -> R {
        let (answer, answered) = channel();
        let command: Command = Box::new(move |engine| drop(answer.send(act(engine))));
        self.commands.as_ref().and_then(|commands| commands.send(command).ok()).expect("the proxy's thread runs");
        self.wake();
        answered.recv().expect("the proxy's thread answers")
    }

    fn wake(&self) {
        // The write fails if the buffer is full. Then the thread wakes up anyway.
        let _ = io::Write::write(&mut &self.wake, b"!");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            debug_assert!(ended.is_ok() || std::thread::panicking(), "the proxy's thread panicked");
        }
    }
}
