//! A TCP proxy on 127.0.0.1 that loses, holds, delays and cuts what goes through it.
//!
//! ```text
//! let proxy = Proxy::new(server.addr())?;               // clients connect to proxy.addr()
//! proxy.set(ToServer | ToClient, Pass | Drop | Hold | Delay(time) | Fragment(bytes)); proxy.both(mode);
//! proxy.cut() -> how many; proxy.refuse(bool); proxy.blackhole(bool); proxy.set_upstream(addr);
//! proxy.connections() -> live ones; proxy.counts() -> Counts { opened, requests, replies, to_server, to_client };
//! let rule = proxy.rule(ToServer, "EVALSHA", 2..=2, Action::CutAfterForward);   // the second request with that word
//! rule.fired(); rule.wait_fired(1, timeout) -> bool; proxy.release_held(); proxy.clear_rules();
//! ```
//!
//! Every call has taken effect when it returns: what a peer sends after it is treated by it.
//!
//! One thread of its own does everything, so that nothing here depends on the runtime under test. The bytes of a
//! connection that begins with `*` are taken as Redis' protocol: they then go on in whole requests and replies, and a
//! rule knows which reply belongs to its request. Of other protocols, whatever one read brings is a request or a reply,
//! and the reply to a request is the next that comes.

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

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// What happens to all bytes of one direction, and to the end of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    Pass,
    /// Lost, with those still held or delayed. The end of a stream isn't seen either, until this mode ends.
    Drop,
    /// Kept, and delivered when the mode is another: late.
    Hold,
    /// Each chunk so much later, in order.
    Delay(Duration),
    /// So many at a time, in segments of their own.
    Fragment(usize),
}

/// What a rule does with the request or reply that has its pattern. Those that await a reply are for requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Only counts.
    Signal,
    /// Resets both sides, and doesn't forward it.
    CutBefore,
    /// Forwards it, and resets both sides instead of forwarding the reply: applied, reply lost.
    CutAfterForward,
    /// Forwards it, and forwards neither the reply nor anything later to this client: silence.
    DropReplyAfterForward,
    /// Keeps it and all later ones of this connection until [`Proxy::release_held`], also when the client goes away
    /// meanwhile: the request arrives late.
    HoldRequest,
    /// Delivers the reply so much later, and those after it in order. Of a reply: this one.
    DelayReply(Duration),
}

/// What a proxy has seen so far, whether it was delivered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections of clients.
    pub opened: u64,
    pub requests: u64,
    /// Without what the server says unasked.
    pub replies: u64,
    /// Bytes.
    pub to_server: u64,
    /// Bytes.
    pub to_client: u64,
}

/// A proxy. Dropped, it closes all its connections and its thread has ended.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    commands: Option<Sender<Command>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When there is no port, descriptor or thread for it.
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

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port of [`addr`](Self::addr).
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Where new connections go.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.tell(move |engine| engine.upstream = upstream);
    }

    /// Changes a direction, for all connections.
    ///
    /// # Panics
    /// On fragments of no bytes.
    pub fn set(&self, direction: Direction, mode: Mode) {
        assert!(mode != Mode::Fragment(0), "a fragment has at least one byte");
        self.tell(move |engine| engine.set(direction, mode));
    }

    /// Changes both directions.
    pub fn both(&self, mode: Mode) {
        self.set(Direction::ToServer, mode);
        self.set(Direction::ToClient, mode);
    }

    /// Resets both sides of every connection; how many there were.
    pub fn cut(&self) -> usize {
        self.tell(Engine::cut)
    }

    /// Whether connections are refused, as if nobody listened here. Those there are stay.
    ///
    /// # Panics
    /// If somebody else got the port meanwhile.
    pub fn refuse(&self, refuse: bool) {
        self.tell(move |engine| engine.refuse(refuse)).expect("the proxy's port is taken");
    }

    /// Whether connections from now on are accepted, and nothing else ever comes of them.
    pub fn blackhole(&self, blackhole: bool) {
        self.tell(move |engine| engine.blackhole = blackhole);
    }

    /// Lets go on what [`Action::HoldRequest`] keeps.
    pub fn release_held(&self) {
        self.tell(Engine::release_held);
    }

    /// How many connections there are which neither side has ended.
    pub fn connections(&self) -> usize {
        self.tell(|engine| engine.connections())
    }

    /// What has been seen so far.
    pub fn counts(&self) -> Counts {
        self.tell(|engine| engine.counts)
    }

    /// Does this to what has the pattern; `which` of them, counted from 1 over all connections: `..`, `3..`, `2..=2`.
    ///
    /// Of Redis' protocol a request counts once however often the pattern is in it. Of others each occurrence counts,
    /// also one that came in two parts: then the action begins with the last of them.
    ///
    /// # Panics
    /// On an empty pattern, and on an action for requests in the other direction.
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

    /// Forgets all rules. What they hold or await stays as it is.
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
        // It fails when the buffer is full: then it will be woken anyway.
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
