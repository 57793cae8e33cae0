//! A connection: it begins or continues a session, sends requests one behind another, and receives their answers in the
//! same order, and the events of watches.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};

use super::error::{SERVICE, auth_failed};
use super::jute::{LIMIT, Malformed, Reader};
use super::protocol::{self, Connect, Connected, EVENT, Event, Header, LOGIN, Request, code};
use super::watch::Watches;
use crate::clock::Instant;
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::net::address::Address;
use crate::net::connection::{Connection, Status};
use crate::net::failure::{connect_timeout, connection_lost, of_io};
use crate::net::link::{self, Wire};
use crate::net::request::answer_within;
use crate::net::socket::Stream;
use crate::runtime::lock;
use crate::timing::millis;

/// The shortest timeout of a session: half a tick has to be less than a fifth of it.
const SHORTEST: Duration = Duration::from_secs(5);

/// The link of a session to its servers.
pub(super) type Link = link::Link<Conn>;

/// The state of a session, which its connections share.
pub(super) struct State {
    /// The timeout that is asked for.
    asked: Duration,
    /// The number by which the engine knows the session.
    pub(super) number: u64,
    context: Context,
    ids: Mutex<Ids>,
    /// The negotiated timeout, in milliseconds.
    timeout: AtomicU64,
    /// The last transaction that the client has seen. A server that hasn't seen it refuses the session.
    last_seen: AtomicI64,
    since: AtomicU64,
    /// The requests that were answered, from the latest one that the leader surely knows.
    answered: Mutex<VecDeque<Answered>>,
    over: AtomicBool,
    pub(super) watches: Watches,
}

/// A request that was answered.
#[derive(Clone, Copy)]
struct Answered {
    sent: Instant,
    /// The time by which a server had it.
    arrived: Instant,
}

/// The session as the server knows it; 0: it hasn't begun.
#[derive(Default)]
struct Ids {
    session: i64,
    password: Vec<u8>,
}

impl State {
    pub(super) fn new(asked: Duration, context: Context) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self {
            asked,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            context,
            ids: Mutex::default(),
            timeout: AtomicU64::new(0),
            last_seen: AtomicI64::new(0),
            since: AtomicU64::new(Instant::START.nanos()),
            answered: Mutex::default(),
            over: AtomicBool::new(false),
            watches: Watches::default(),
        }
    }

    /// Returns the session's id at the server; 0: it hasn't begun.
    pub(super) fn id(&self) -> i64 {
        lock(&self.ids).session
    }

    /// Returns the negotiated timeout.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.load(Ordering::Acquire))
    }

    /// Returns the time from which three quarters of the timeout count: the leader ends the session later than that.
    pub(super) fn since(&self) -> Instant {
        Instant::from_nanos(self.since.load(Ordering::Acquire))
    }

    /// Notes that the session began, by a message that was sent at this time: a majority has confirmed it.
    fn begun(&self, sent: Instant) {
        self.since.fetch_max(sent.nanos(), Ordering::AcqRel);
        lock(&self.answered).push_back(Answered { sent, arrived: sent });
    }

    /// Notes that the session was continued on another connection. The leader knows of that at once, but this may be one
    /// that has been replaced. So it counts from the next write on.
    fn continued(&self, sent: Instant) {
        let gap = self.timeout() / 5;
        if mutant!("zookeeper-sync-trusted") {
            self.since.fetch_max(sent.nanos(), Ordering::AcqRel);
        }
        lock(&self.answered).push_back(Answered { sent, arrived: sent.minus(gap) });
    }

    /// Notes the answer to a request that was sent at this time.
    ///
    /// A follower reports to the leader every half tick which sessions it has heard from, and a request that it forwards
    /// reports nothing. So the answer to a write shows that the leader knows of what was answered half a tick before,
    /// which is less than a fifth of the timeout. An answer to anything else shows nothing: the leader may have been
    /// replaced.
    pub(super) fn heard(&self, sent: Instant, is_a_write: bool) {
        let (gap, margin) = (self.timeout() / 5, self.timeout() / 4);
        let mut answered = lock(&self.answered);
        if is_a_write {
            let known = answered.iter().rposition(|one| one.arrived.plus(gap) <= sent);
            answered.drain(..known.unwrap_or(0));
            let since = if mutant!("zookeeper-follower-trusted") {
                Some(sent)
            } else {
                known.and_then(|_| answered.front()).map(|known| known.sent.plus(margin).min(sent))
            };
            if let Some(since) = since {
                self.since.fetch_max(since.nanos(), Ordering::AcqRel);
            }
        }
        if answered.back().is_none_or(|last| last.sent.plus(gap / 4) <= sent) {
            let arrived = if mutant!("zookeeper-late-request-trusted") { sent } else { Instant::now() };
            answered.push_back(Answered { sent, arrived });
        }
    }

    /// Returns true if the last answer is so old that another one would show nothing of use.
    pub(super) fn is_unheard(&self) -> bool {
        lock(&self.answered).back().is_none_or(|last| last.sent.plus(self.timeout() / 5 * 2).passed())
    }

    /// Notes the server's word that the session has ended.
    pub(super) fn end(&self) {
        if !self.over.swap(true, Ordering::AcqRel) {
            self.watches.fire_all();
            self.context.suspect_session(self.number);
        }
    }

    /// Wakes those who watch a node.
    fn fire(&self, path: &str) {
        self.watches.fire(path).iter().for_each(|name| self.context.suspect(name));
    }

    /// Wakes all that watch: watches end with their connection. A server that is gone may not have told the leader that
    /// the session lives, so all its leases are looked at.
    fn disconnected(&self) {
        self.watches.fire_all();
        self.context.suspect_session(self.number);
    }

    /// Returns true if the session has ended, by the server's word or by the time.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.id() != 0 && self.since().plus(self.timeout()).passed()
    }
}

/// A connection to one server. It closes when it is dropped.
pub(super) struct Conn {
    status: Status,
    outbox: Arc<Outbox>,
    tasks: [tokio::task::AbortHandle; 2],
}

/// The requests of a connection.
#[derive(Default)]
struct Outbox {
    requests: Mutex<Requests>,
    more: Notify,
}

#[derive(Default)]
struct Requests {
    last: i32,
    /// The messages that are still to be written.
    buffer: Vec<u8>,
    /// The number of the last requests whose messages are in `buffer`.
    unsent: usize,
    pending: VecDeque<Pending>,
    /// The reason why the connection is closed.
    closed: Option<Error>,
}

struct Pending {
    number: i32,
    answer: oneshot::Sender<std::result::Result<Reply, Lost>>,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: i32,
    pub(super) body: Vec<u8>,
}

/// A connection that was lost before the answer to a request came.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) error: Error,
    /// True if the request may have been sent.
    pub(super) sent: bool,
}

impl Wire for Conn {
    const SERVICE: &'static str = SERVICE;
    type Shared = State;

    async fn connect(link: Arc<Link>, number: u64) -> Result<Arc<Self>> {
        let made = connect(&link, number).await;
        // Each waiter asks again.
        link.shared.watches.fire_all();
        made.map(Arc::new)
    }

    fn give_up(&self) {
        self.status.give_up();
        self.outbox.close(&Error::unavailable("the connection to ZooKeeper was given up"));
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl Connection for Conn {
    fn status(&self) -> &Status {
        &self.status
    }
}

impl Conn {
    /// Sends a request. Requests are executed in the order of these calls.
    pub(super) fn call(&self, request: &Request) -> oneshot::Receiver<std::result::Result<Reply, Lost>> {
        let (answer, answered) = oneshot::channel();
        let mut requests = lock(&self.outbox.requests);
        if let Some(error) = &requests.closed {
            let _ = answer.send(Err(Lost { error: error.clone(), sent: false }));
            return answered;
        }
        let number = requests.last.checked_add(1).unwrap_or(1);
        requests.last = number;
        let message = request.encode(number);
        requests.buffer.extend(message);
        requests.unsent += 1;
        requests.pending.push_back(Pending { number, answer });
        drop(requests);
        self.outbox.more.notify_one();
        answered
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({})", self.status.number())
    }
}

impl Outbox {
    /// Ends all requests.
    fn close(&self, error: &Error) {
        let mut requests = lock(&self.requests);
        if requests.closed.is_none() {
            requests.closed = Some(error.clone());
        }
        let pending = std::mem::take(&mut requests.pending);
        let sent = pending.len() - requests.unsent.min(pending.len());
        requests.unsent = 0;
        drop(requests);
        for (at, pending) in pending.into_iter().enumerate() {
            let _ = pending.answer.send(Err(Lost { error: error.clone(), sent: at < sent }));
        }
    }

    /// Gives an answer to the first request that waits for one.
    fn answer(&self, header: Header, body: &[u8]) -> std::result::Result<(), Malformed> {
        let mut requests = lock(&self.requests);
        if requests.pending.front().is_none_or(|first| first.number != header.number) {
            return Err(Malformed);
        }
        let Some(first) = requests.pending.pop_front() else { return Err(Malformed) };
        requests.unsent = requests.unsent.min(requests.pending.len());
        drop(requests);
        let _ = first.answer.send(Ok(Reply { code: header.code, body: body.to_vec() }));
        Ok(())
    }
}

/// Connects to one of the servers. Each is tried once, the one of this number first, counted from 1.
async fn connect(link: &Arc<Link>, number: u64) -> Result<Conn> {
    let (count, first) = (link.addresses.len(), usize::try_from(number).unwrap_or(1) - 1);
    let limit = link.config.connect_timeout() / u32::try_from(count).unwrap_or(1).max(1);
    let mut failed = Error::unavailable("ZooKeeper has no server");
    for turn in 0..count {
        let address = &link.addresses[first.wrapping_add(turn) % count];
        let made = answer_within(limit, made(link, address, number)).await;
        match made.unwrap_or_else(|| Err(connect_timeout(SERVICE, address, limit, "connect_timeout"))) {
            Ok(conn) => return Ok(conn),
            // What is refused here is refused everywhere.
            Err(error) if !error.is_temporary() => return Err(error),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

type Incoming = BufReader<ReadHalf<Box<dyn Stream>>>;

/// Connects to one server.
async fn made(link: &Arc<Link>, address: &Address, number: u64) -> Result<Conn> {
    let (name, state) = (address.to_string(), &link.shared);
    let stream = address.connect().await.map_err(|error| of_io(SERVICE, &error, address))?;
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::new(read);
    let lost = |why: &dyn fmt::Display| connection_lost(SERVICE, &name, why);
    let sent = Instant::now();
    let begin = {
        let ids = lock(&state.ids);
        let timeout_ms = i32::try_from(millis(state.asked)).unwrap_or(i32::MAX);
        let last_seen = state.last_seen.load(Ordering::Acquire);
        Connect { last_seen, timeout_ms, session: ids.session, password: &ids.password }.encode()
    };
    write.write_all(&begin).await.map_err(|error| lost(&error))?;
    let answer = frame(&mut read).await.map_err(|error| lost(&error))?;
    let connected = Connected::read(&answer).map_err(|error| lost(&error))?;
    let Some(timeout) = u64::try_from(connected.timeout_ms).ok().filter(|timeout| *timeout > 0) else {
        state.end();
        return Err(Error::refused(format!("ZooKeeper at {name} has ended the session")));
    };
    let known = state.id();
    if known != 0 && (connected.session != known || timeout < millis(state.timeout())) {
        // Its leases count on the timeout that they were granted with.
        state.end();
        return Err(Error::refused(format!("ZooKeeper at {name} continues the session with another timeout or id")));
    }
    if timeout < millis(SHORTEST) {
        return Err(Error::refused(format!(
            "ZooKeeper at {name} limits the timeout of a session to {timeout} ms, and dlock needs {SHORTEST:?}: raise \
             maxSessionTimeout there"
        )));
    }
    if known == 0 && timeout != millis(state.asked) {
        let of = |timeout: u64| Duration::from_millis(timeout * 3 / 4);
        state.context.warn(&format!(
            "ZooKeeper at {name} limits the timeout of a session: locks with the ttl {:?} get {:?}. Use such a ttl, or change \
             minSessionTimeout and maxSessionTimeout there",
            of(millis(state.asked)),
            of(timeout),
        ));
    }
    state.timeout.fetch_max(timeout, Ordering::AcqRel);
    if known == 0 {
        state.begun(sent);
    } else {
        state.continued(sent);
    }
    *lock(&state.ids) = Ids { session: connected.session, password: connected.password };
    let values = link.config.values();
    if let Some(user) = values.text("username") {
        let secret = format!("{user}:{}", values.text("password").unwrap_or_default());
        write.write_all(&protocol::login("digest", secret.as_bytes())).await.map_err(|error| lost(&error))?;
        let answer = frame(&mut read).await.map_err(|error| lost(&error))?;
        let header = Header::read(&mut Reader::new(&answer)).map_err(|error| lost(&error))?;
        if header.number != LOGIN || header.code != code::OK {
            return Err(auth_failed(&name));
        }
    }
    address.was_reached();
    let outbox = Arc::new(Outbox::default());
    let tasks = [
        tokio::spawn(send(outbox.clone(), write, name.clone())).abort_handle(),
        tokio::spawn(receive(Arc::downgrade(link), number, outbox.clone(), read, name)).abort_handle(),
    ];
    Ok(Conn { status: Status::new(number), outbox, tasks })
}

/// Reads one message.
async fn frame(read: &mut Incoming) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(read.read_i32().await?).ok().filter(|length| *length <= LIMIT);
    let length = length.ok_or_else(|| std::io::Error::other(format!("{Malformed}")))?;
    let mut bytes = Vec::new();
    // No more memory than what comes.
    read.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Writes the requests, as many at a time as there are.
async fn send(outbox: Arc<Outbox>, mut write: WriteHalf<Box<dyn Stream>>, name: String) {
    loop {
        let more = outbox.more.notified();
        let messages = {
            let mut requests = lock(&outbox.requests);
            requests.unsent = 0;
            std::mem::take(&mut requests.buffer)
        };
        if messages.is_empty() {
            more.await;
        } else if let Err(error) = write.write_all(&messages).await {
            return outbox.close(&connection_lost(SERVICE, &name, &error));
        }
    }
}

/// Receives answers and events until the connection is lost.
async fn receive(link: Weak<Link>, number: u64, outbox: Arc<Outbox>, mut read: Incoming, name: String) {
    let error = loop {
        let message = match frame(&mut read).await {
            Ok(message) => message,
            Err(error) => break connection_lost(SERVICE, &name, &error),
        };
        let Some(link) = link.upgrade() else { return };
        if let Err(error) = handle(&link, &outbox, &message) {
            break connection_lost(SERVICE, &name, &error);
        }
    };
    outbox.close(&error);
    if let Some(link) = link.upgrade() {
        link.forget(number);
        link.shared.disconnected();
    }
}

/// Handles one message of the server.
fn handle(link: &Link, outbox: &Outbox, message: &[u8]) -> std::result::Result<(), Malformed> {
    let mut read = Reader::new(message);
    let header = Header::read(&mut read)?;
    if header.number == EVENT {
        link.shared.fire(&Event::read(&mut read)?.path);
        return Ok(());
    }
    if header.zxid > 0 {
        link.shared.last_seen.fetch_max(header.zxid, Ordering::AcqRel);
    }
    outbox.answer(header, read.rest())
}
