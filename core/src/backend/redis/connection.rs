//! A connection: login, messages, tracking, the server's clock, the scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, Value,
};

use super::error::{of_connect, of_io, of_request};
use super::link::{Conn, Link, WeakLink};
use super::script::{COUNT, Script};
use crate::clock;
use crate::error::{Error, Result};
use crate::net::Stream;
use crate::runtime::BoxFuture;

/// Connects, within the configuration's limit.
pub(super) async fn connect(link: &Arc<Link>, number: u64) -> Result<Arc<Conn>> {
    let limit = link.config.connect_timeout();
    let made = async {
        match made(link, number, ProtocolVersion::RESP3).await {
            // Servers before 6.0, and proxies that know only RESP2.
            Err(Refused::Protocol) => made(link, number, ProtocolVersion::RESP2).await,
            other => other,
        }
    };
    tokio::select! {
        biased;
        made = made => made.map_err(|refused| match refused {
            Refused::Protocol => Error::refused(format!("Redis at {} speaks no protocol known here", link.address)),
            Refused::Error(error) => error,
        }),
        () = clock::sleep(limit) => Err(Error::unavailable(format!(
            "Redis at {} didn't complete a connection within {limit:?}; raise connect_timeout, or see whether it is \
             overloaded or stopped{}",
            link.address,
            link.address.hint()
        ))),
    }
}

/// The reason why a connection failed.
enum Refused {
    Protocol,
    Error(Error),
}

async fn made(link: &Arc<Link>, number: u64, protocol: ProtocolVersion) -> Result<Arc<Conn>, Refused> {
    let address = link.address.to_string();
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
        _ => Refused::Error(of_connect(error, &link.address)),
    };
    let (mux, driver) =
        MultiplexedConnection::new_with_config(&info, stream(link).await?, config).await.map_err(|e| refused(&e))?;
    let driver: BoxFuture<'static, ()> = Box::pin(driver);
    let mut tasks = vec![tokio::spawn(driver).abort_handle()];
    let channel = link.inbox.channel();
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
    let facts = facts.map_err(|error| Refused::Error(of_request(&error, &address).0))?;
    if let Some(policy) = facts.evicts {
        let note = format!(
            "Redis at {address} may remove a held lock when it has no memory left: its maxmemory-policy is {policy}; \
             noeviction keeps them"
        );
        link.inbox.warn(&note);
    }
    if !messages && !link.deaf.swap(true, Ordering::Relaxed) {
        let note = format!(
            "Redis at {address} sends no messages to this user: waiting acquires ask again every 10 to 250 ms instead of \
             being woken; allow the user SUBSCRIBE and PUBLISH on dlock:c:* (ACL SETUSER … &dlock:c:* +subscribe +publish)"
        );
        link.inbox.warn(&note);
    }
    let conn = Conn {
        number,
        made: clock::Instant::now(),
        mux,
        offset: AtomicI64::new(0),
        hashes: facts.hashes,
        messages,
        tracking: facts.tracking,
        dead: AtomicBool::new(false),
        tasks,
    };
    conn.set_clock(facts.server_ms);
    link.address.was_reached();
    Ok(Arc::new(conn))
}

/// Returns true if the server doesn't know HELLO, or not this version of the protocol.
fn no_hello(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default().to_ascii_lowercase();
    error.code() == Some("NOPROTO") || detail.contains("unknown command") && detail.contains("hello")
}

async fn stream(link: &Link) -> Result<Box<dyn Stream>, Refused> {
    link.address.connect().await.map_err(|error| Refused::Error(of_io(&error, &link.address)))
}

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

fn pushed(link: &WeakLink, number: u64, push: &PushInfo) {
    let Some(link) = link.upgrade() else { return };
    if push.kind == PushKind::Disconnection {
        link.gone(number);
    } else {
        link.receive(link.inbox.push(push));
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
            link.receive(link.inbox.message(&String::from_utf8_lossy(message.get_payload_bytes())));
        }
        // The next connection subscribes again.
        if let Some(link) = weak.upgrade() {
            link.gone(number);
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

fn text(value: Value) -> Option<String> {
    redis::from_redis_value(value.extract_error().ok()?).ok()
}
