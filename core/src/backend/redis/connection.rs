//! A connection: login, messages, tracking, the server's clock, the scripts.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, Value,
};

use super::error::{SERVICE, of_connect, of_request};
use super::inbox::{Inbox, Orphan};
use super::script::{COUNT, Script};
use crate::clock::Instant;
use crate::contract::Context;
use crate::error::{Error, Result};
use crate::net::address::Address;
use crate::net::connection::{Connection, Status};
use crate::net::failure::{connect_timeout, of_io};
use crate::net::link::{self, Wire};
use crate::net::request::answer_within;
use crate::net::socket::Stream;
use crate::runtime::BoxFuture;

/// The link of a client to its Redis.
pub(super) type Link = link::Link<Conn>;

/// The state that all connections of a client share.
pub(super) struct Shared {
    pub(super) inbox: Arc<Inbox>,
    /// Takes back an orphan that a message leaves.
    take_back: fn(&Arc<Link>, Orphan),
    /// True if a warning that messages don't arrive was sent.
    deaf: AtomicBool,
    /// True if a probe is in progress.
    pub(super) probing: AtomicBool,
    /// The number of connections in a row that were given up because their server could not serve.
    pub(super) left: AtomicU32,
}

/// A connection to the server. It closes when no request on it waits for an answer any more.
pub(super) struct Conn {
    pub(super) status: Status,
    pub(super) made: Instant,
    pub(super) mux: MultiplexedConnection,
    /// The server's clock minus ours, in milliseconds.
    offset: AtomicI64,
    /// The hashes of the scripts that the server has loaded.
    pub(super) hashes: [Option<String>; COUNT],
    /// True if messages arrive.
    pub(super) messages: bool,
    /// The findings about this server: what keeps its locks from what they promise, and the remedy.
    pub(super) findings: Vec<String>,
    /// True if the server reports changes of keys.
    pub(super) tracking: bool,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl Shared {
    pub(super) fn new(context: Context, take_back: fn(&Arc<Link>, Orphan)) -> Self {
        let (deaf, probing) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { inbox: Inbox::new(context), take_back, deaf, probing, left: AtomicU32::new(0) }
    }
}

impl Wire for Conn {
    const SERVICE: &'static str = SERVICE;
    type Shared = Shared;

    async fn connect(link: Arc<Link>, number: u64) -> Result<Arc<Self>> {
        let made = connect(&link, number).await;
        // Every waiter asks again: messages may have been missed.
        link.shared.inbox.notify_all();
        made
    }

    fn lost(link: &Link) {
        link.shared.inbox.notify_all();
    }
}

impl Connection for Conn {
    fn status(&self) -> &Status {
        &self.status
    }
}

impl Conn {
    /// Returns what the server's clock shows at this time, in milliseconds.
    pub(super) fn server_ms(&self, at: Instant) -> i64 {
        ms(at) + self.offset.load(Ordering::Acquire)
    }

    /// Corrects the estimate of the server's clock by what it shows now.
    pub(super) fn set_clock(&self, server_ms: i64) {
        self.offset.store(server_ms - ms(Instant::now()), Ordering::Release);
    }
}

fn ms(at: Instant) -> i64 {
    i64::try_from(at.nanos() / 1_000_000).unwrap_or(i64::MAX / 2)
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({})", self.status.number())
    }
}

/// Returns the address of the server.
fn address(link: &Link) -> &Address {
    &link.addresses[0]
}

/// Connects, within the configuration's limit.
async fn connect(link: &Arc<Link>, number: u64) -> Result<Arc<Conn>> {
    let limit = link.config.connect_timeout();
    let made = answer_within(limit, async {
        match made(link, number, ProtocolVersion::RESP3).await {
            // Servers before 6.0, and proxies that know only RESP2.
            Err(Refused::Protocol) => made(link, number, ProtocolVersion::RESP2).await,
            other => other,
        }
    });
    match made.await {
        Some(Ok(conn)) => Ok(conn),
        Some(Err(Refused::Error(error))) => Err(error),
        Some(Err(Refused::Protocol)) => {
            Err(Error::refused(format!("Redis at {} speaks no protocol known here", address(link))))
        }
        None => Err(connect_timeout(SERVICE, address(link), limit, "connect_timeout")),
    }
}

/// The reason why a connection failed.
enum Refused {
    Protocol,
    Error(Error),
}

/// Makes a connection that speaks this protocol.
async fn made(link: &Arc<Link>, number: u64, protocol: ProtocolVersion) -> Result<Arc<Conn>, Refused> {
    let name = address(link).to_string();
    let info = info(link, protocol);
    let push = protocol == ProtocolVersion::RESP3;
    let mut config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(4096);
    if push {
        let link = Arc::downgrade(link);
        config = config.set_push_sender(move |push: PushInfo| {
            pushed(&link, number, &push);
            Ok::<_, std::convert::Infallible>(())
        });
    }
    let refused = |error: &RedisError| match error.kind() {
        ErrorKind::RESP3NotSupported => Refused::Protocol,
        _ if push && no_hello(error) => Refused::Protocol,
        _ => Refused::Error(of_connect(error, address(link))),
    };
    let (mux, driver) =
        MultiplexedConnection::new_with_config(&info, stream(link).await?, config).await.map_err(|e| refused(&e))?;
    let driver: BoxFuture<'static, ()> = Box::pin(driver);
    let mut tasks = vec![tokio::spawn(driver).abort_handle()];
    let channel = link.shared.inbox.channel();
    let (messages, facts) = tokio::join!(
        async {
            if push {
                return mux.clone().subscribe(&channel).await.is_ok();
            }
            match listen(link, &info, &channel, number).await {
                Some(task) => {
                    tasks.push(task);
                    true
                }
                None => false,
            }
        },
        facts(mux.clone(), push)
    );
    let facts = facts.map_err(|error| Refused::Error(of_request(&error, &name).error))?;
    let mut findings = Vec::new();
    if let Some(policy) = facts.evicts {
        let note = format!(
            "Redis at {name} may remove a held lock when it has no memory left: its maxmemory-policy is {policy}; \
             noeviction keeps them"
        );
        link.shared.inbox.warn(&note);
        findings.push(note);
    }
    if !messages {
        let note = format!(
            "Redis at {name} sends no messages to this user: waiting acquires ask again every 10 to 250 ms instead of \
             being woken; allow the user SUBSCRIBE and PUBLISH on dlock:c:* (ACL SETUSER … &dlock:c:* +subscribe +publish)"
        );
        if !link.shared.deaf.swap(true, Ordering::Relaxed) {
            link.shared.inbox.warn(&note);
        }
        findings.push(note);
    }
    let conn = Conn {
        status: Status::new(number),
        made: Instant::now(),
        mux,
        offset: AtomicI64::new(0),
        hashes: facts.hashes,
        messages,
        findings,
        tracking: facts.tracking,
        tasks,
    };
    conn.set_clock(facts.server_ms);
    address(link).was_reached();
    Ok(Arc::new(conn))
}

/// Returns true if the server doesn't know HELLO, or not this version of the protocol.
fn no_hello(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default().to_ascii_lowercase();
    error.code() == Some("NOPROTO") || detail.contains("unknown command") && detail.contains("hello")
}

/// Connects the socket.
async fn stream(link: &Link) -> Result<Box<dyn Stream>, Refused> {
    address(link).connect().await.map_err(|error| Refused::Error(of_io(SERVICE, &error, address(link))))
}

/// Returns database and login.
fn info(link: &Link, protocol: ProtocolVersion) -> RedisConnectionInfo {
    let values = link.config.values();
    let mut info = RedisConnectionInfo::default()
        .set_protocol(protocol)
        .set_db(values.count("db").and_then(|db| i64::try_from(db).ok()).unwrap_or(0))
        .set_lib_name("dlock", env!("CARGO_PKG_VERSION"));
    if let Some(user) = values.text("username") {
        info = info.set_username(user);
    }
    if let Some(password) = values.text("password") {
        info = info.set_password(password);
    }
    info
}

/// Handles a push of the server.
fn pushed(link: &Weak<Link>, number: u64, push: &PushInfo) {
    let Some(link) = link.upgrade() else { return };
    if push.kind == PushKind::Disconnection {
        link.forget(number);
    } else {
        take_back(&link, link.shared.inbox.push(push));
    }
}

/// Takes back the orphan that a message may have left.
fn take_back(link: &Arc<Link>, orphan: Option<Orphan>) {
    if let Some(orphan) = orphan {
        (link.shared.take_back)(link, orphan);
    }
}

/// Receives messages on a second connection, as needed without RESP3.
async fn listen(
    link: &Arc<Link>,
    info: &RedisConnectionInfo,
    channel: &str,
    number: u64,
) -> Option<tokio::task::AbortHandle> {
    let stream = stream(link).await.ok()?;
    let (mut sink, mut messages) = PubSub::new(info, stream).await.ok()?.split();
    sink.subscribe(channel).await.ok()?;
    let weak = Arc::downgrade(link);
    let task = tokio::spawn(async move {
        let _sink = sink;
        while let Some(message) =
            std::future::poll_fn(|cx| futures_core::Stream::poll_next(std::pin::Pin::new(&mut messages), cx)).await
        {
            let Some(link) = weak.upgrade() else { return };
            take_back(&link, link.shared.inbox.message(&String::from_utf8_lossy(message.get_payload_bytes())));
        }
        // The next connection subscribes again.
        if let Some(link) = weak.upgrade() {
            link.forget(number);
        }
    });
    Some(task.abort_handle())
}

/// The answers to the first questions on a connection.
struct Facts {
    tracking: bool,
    server_ms: i64,
    hashes: [Option<String>; COUNT],
    /// The policy by which the server may remove locks.
    evicts: Option<String>,
}

/// Asks the first questions on a connection.
async fn facts(mut mux: MultiplexedConnection, push: bool) -> Result<Facts, RedisError> {
    let mut pipe = redis::pipe();
    pipe.cmd("TIME").cmd("INFO").arg("memory");
    Script::ALL.iter().for_each(|script| {
        pipe.cmd("SCRIPT").arg("LOAD").arg(script.text());
    });
    let mut count = 2 + COUNT;
    if push {
        pipe.cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN");
        count += 1;
    }
    let mut values = mux.send_packed_commands(&pipe, 0, count).await?.into_iter();
    let time: (i64, i64) = redis::from_redis_value(values.next().unwrap_or_default().extract_error()?)?;
    let memory = values.next().and_then(text).unwrap_or_default();
    let field = |name: &str| memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let evicts = field("maxmemory_policy").filter(|policy| *policy != "noeviction" && field("maxmemory") != Some("0"));
    Ok(Facts {
        server_ms: time.0 * 1000 + time.1 / 1000,
        evicts: evicts.map(str::to_owned),
        // A script that can't be loaded is sent in full.
        hashes: std::array::from_fn(|_| values.next().and_then(text)),
        tracking: push && matches!(values.next(), Some(Value::Okay)),
    })
}

/// Returns the text of an answer.
fn text(value: Value) -> Option<String> {
    redis::from_redis_value(value.extract_error().ok()?).ok()
}
