//! One connection: the bytes that are under way in both directions, and their treatment.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::pipe::{End, Pipe};
use super::rule::{Entry, Rule};
use super::{Action, Counts, Direction, Mode};
use crate::resp;

/// The maximum number of queued bytes. A side that sends faster than the other side reads waits from here on.
const FULL: usize = 16 << 20;

pub(super) const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// The decision about a connection.
#[derive(Debug)]
pub(super) enum Fate {
    Keep,
    Close,
    /// Both sides are reset, and the reset counts for these rules.
    Cut(Vec<Rule>),
}

/// The parts of the proxy that a connection needs.
pub(super) struct Terms<'a> {
    pub(super) modes: [Mode; 2],
    pub(super) rules: &'a mut Vec<Entry>,
    pub(super) counts: &'a mut Counts,
    pub(super) now: Instant,
}

#[derive(Debug)]
pub(super) struct Conn {
    client: TcpStream,
    /// The server. `None` in a black hole.
    server: Option<TcpStream>,
    pipes: [Pipe; 2],
    /// True if the protocol is Redis'. `None` before the client's first byte.
    resp: Option<bool>,
    /// The number of forwarded requests that get a reply. The field `answered` counts the replies that came.
    asked: u64,
    answered: u64,
    awaited: Vec<Awaited>,
}

/// An action for a reply.
#[derive(Debug)]
struct Awaited {
    /// The number of the reply's request. `None`: the next bytes, whatever they are.
    reply: Option<u64>,
    action: Action,
    rule: Rule,
}

impl Conn {
    pub(super) fn new(client: TcpStream, server: Option<TcpStream>) -> std::io::Result<Self> {
        for stream in std::iter::once(&client).chain(&server) {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        let pipes = [Pipe::default(), Pipe::default()];
        Ok(Self { client, server, pipes, resp: None, asked: 0, answered: 0, awaited: Vec::new() })
    }

    /// Returns the stream from which bytes of this direction come.
    pub(super) fn source(&self, direction: Direction) -> Option<&TcpStream> {
        match direction {
            Direction::ToServer => Some(&self.client),
            Direction::ToClient => self.server.as_ref(),
        }
    }

    fn sink(&self, direction: Direction) -> Option<&TcpStream> {
        match direction {
            Direction::ToServer => self.server.as_ref(),
            Direction::ToClient => Some(&self.client),
        }
    }

    pub(super) fn into_streams(self) -> impl Iterator<Item = TcpStream> {
        std::iter::once(self.client).chain(self.server)
    }

    /// Returns true if neither side has ended the connection.
    pub(super) fn is_live(&self) -> bool {
        self.pipes.iter().all(|pipe| pipe.end.is_none())
    }

    /// Returns true if bytes of this direction are to be read from their source.
    pub(super) fn wants(&self, direction: Direction) -> bool {
        let pipe = &self.pipes[direction as usize];
        pipe.end.is_none() && pipe.queued < FULL
    }

    /// Returns the time at which the next bytes of this direction are to be written.
    pub(super) fn due(&self, direction: Direction, mode: Mode) -> Option<Instant> {
        self.pipes[direction as usize].due(mode)
    }

    pub(super) fn release(&mut self) {
        for pipe in &mut self.pipes {
            pipe.held = false;
        }
    }

    /// Drops the bytes that are under way in this direction.
    pub(super) fn lose(&mut self, direction: Direction) {
        let pipe = &mut self.pipes[direction as usize];
        self.asked -= pipe.queue.iter().filter(|chunk| chunk.asks).count() as u64;
        pipe.queue.clear();
        pipe.queued = 0;
        let asked = self.asked;
        self.awaited.retain(|awaited| awaited.reply.is_none_or(|reply| reply <= asked));
    }

    /// Reads once from the source of this direction.
    pub(super) fn receive(&mut self, direction: Direction, terms: &mut Terms<'_>) -> Fate {
        let mut buffer = [0; 32 << 10];
        let Some(mut source) = self.source(direction) else { return Fate::Keep };
        let end = match source.read(&mut buffer) {
            Ok(0) => End::Closed,
            Ok(length) => return self.take(direction, &buffer[..length], terms),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Fate::Keep,
            Err(_) => End::Reset,
        };
        if self.server.is_none() {
            return Fate::Close;
        }
        let rest = std::mem::take(&mut self.pipes[direction as usize].part);
        let fate = if rest.is_empty() { Fate::Keep } else { self.arrive(direction, rest, false, terms) };
        let pipe = &mut self.pipes[direction as usize];
        // A reset would overtake the bytes that are still queued, and the peer might never read them.
        pipe.end = Some(if pipe.queue.is_empty() { end } else { End::Closed });
        fate
    }

    fn take(&mut self, direction: Direction, bytes: &[u8], terms: &mut Terms<'_>) -> Fate {
        match direction {
            Direction::ToServer => terms.counts.to_server += bytes.len() as u64,
            Direction::ToClient => terms.counts.to_client += bytes.len() as u64,
        }
        if self.server.is_none() {
            return Fate::Keep;
        }
        if direction == Direction::ToServer {
            self.resp.get_or_insert(bytes[0] == b'*');
        }
        if self.resp != Some(true) {
            return self.arrive(direction, bytes.to_vec(), true, terms);
        }
        let pipe = &mut self.pipes[direction as usize];
        pipe.part.extend(bytes);
        let (values, fine) = resp::take(&mut pipe.scan, &mut pipe.part);
        self.resp = Some(fine.is_ok());
        for value in values {
            let fate = self.arrive(direction, value, true, terms);
            if !matches!(fate, Fate::Keep) {
                return fate;
            }
        }
        Fate::Keep
    }

    /// Takes in a request or a reply. If `whole` is false, it is a part of one, and the stream ended after it.
    fn arrive(&mut self, direction: Direction, bytes: Vec<u8>, whole: bool, terms: &mut Terms<'_>) -> Fate {
        let mode = terms.modes[direction as usize];
        let resp = self.resp == Some(true) && whole;
        let asks = direction == Direction::ToServer && (!resp || resp::is_answered(&bytes));
        let lost = mode == Mode::Drop || self.pipes[direction as usize].deaf;
        let (mut late, mut cut) = (Duration::ZERO, Vec::new());
        match direction {
            Direction::ToServer => terms.counts.requests += 1,
            Direction::ToClient => {
                let replies = !resp || (!resp::is_push(&bytes) && self.answered < self.asked);
                self.answered += u64::from(replies);
                terms.counts.replies += u64::from(replies);
                let answered = self.answered;
                let is_it = |awaited: &mut Awaited| match awaited.reply {
                    Some(reply) if resp => replies && reply == answered,
                    _ => true,
                };
                for Awaited { action, rule, .. } in self.awaited.extract_if(.., is_it) {
                    match action {
                        Action::CutAfterForward => cut.push(rule),
                        Action::DelayReply(time) => {
                            late = late.max(time);
                            rule.fire();
                        }
                        _ => {
                            self.pipes[direction as usize].deaf = true;
                            rule.fire();
                        }
                    }
                }
            }
        }
        let pipe = &mut self.pipes[direction as usize];
        for entry in terms.rules.iter_mut().filter(|entry| entry.direction == direction) {
            let fires = if resp {
                entry.in_value(&bytes)
            } else {
                entry.in_stream(pipe.tails.entry(entry.id).or_default(), &bytes)
            };
            let rule = entry.rule.clone();
            match entry.action {
                _ if !fires => {}
                Action::Signal => rule.fire(),
                Action::CutBefore => cut.push(rule),
                Action::HoldRequest => {
                    pipe.held = true;
                    rule.fire();
                }
                Action::DelayReply(time) if direction == Direction::ToClient => {
                    late = late.max(time);
                    rule.fire();
                }
                action if !lost => {
                    let reply = (resp && asks).then_some(self.asked + 1);
                    self.awaited.push(Awaited { reply, action, rule });
                }
                _ => {}
            }
        }
        if !cut.is_empty() {
            return Fate::Cut(cut);
        }
        if !(lost || pipe.deaf) {
            let delay = if let Mode::Delay(time) = mode { time } else { Duration::ZERO };
            pipe.push(bytes, asks, terms.now + delay.max(late));
            self.asked += u64::from(asks);
        }
        Fate::Keep
    }

    /// Writes the bytes of this direction that are due.
    pub(super) fn send(&mut self, direction: Direction, terms: &Terms<'_>) -> Fate {
        let mode = terms.modes[direction as usize];
        while self.due(direction, mode).is_some_and(|due| due <= terms.now) {
            let pipe = &self.pipes[direction as usize];
            let (Some(first), Some(mut sink)) = (pipe.queue.front(), self.sink(direction)) else { break };
            let rest = &first.bytes[first.sent..];
            let length = if let Mode::Fragment(most) = mode { rest.len().min(most) } else { rest.len() };
            match sink.write(&rest[..length]) {
                Ok(length) => self.pipes[direction as usize].sent(length, matches!(mode, Mode::Fragment(_))),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                Err(_) => return self.broken(direction),
            }
        }
        let pipe = &mut self.pipes[direction as usize];
        if pipe.queue.is_empty() && !(pipe.closed || pipe.deaf) && pipe.flows(mode) && mode != Mode::Drop {
            match pipe.end {
                Some(End::Reset) => return Fate::Cut(Vec::new()),
                Some(End::Closed) => {
                    pipe.closed = true;
                    // The call fails only if that side is gone already.
                    let _ = self.sink(direction).map(|sink| sink.shutdown(Shutdown::Write));
                }
                None => {}
            }
        }
        let over = |pipe: &Pipe| pipe.closed || (pipe.deaf && pipe.end.is_some() && pipe.queue.is_empty());
        let over = self.pipes.iter().all(over);
        if over { Fate::Close } else { Fate::Keep }
    }

    /// Handles a sink of this direction that is gone: drops its bytes.
    fn broken(&mut self, direction: Direction) -> Fate {
        self.lose(direction);
        self.pipes[direction as usize].deaf = true;
        if direction == Direction::ToServer {
            // A client that goes on sending to a server that is gone is reset. The server isn't reset: it may have read
            // only a part of the bytes that the client sent before it went.
            let back = &mut self.pipes[Direction::ToClient as usize];
            back.end = Some(End::Reset);
            back.closed = false;
        }
        Fate::Keep
    }
}
