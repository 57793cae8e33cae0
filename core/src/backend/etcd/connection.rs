//! A connection: our own socket and TLS, the crate's HTTP/2 above them, and the login.

use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use http::header::{HeaderValue, USER_AGENT};
use http::uri::{Authority, InvalidUri, Scheme, Uri};
use http::{Request, Response};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Notify;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

use super::coalesce::CoalescingStream;
use super::error::{SERVICE, of_request};
use crate::error::{Error, Result};
use crate::net::connection::{Connection, Status};
use crate::net::failure::{connect_timeout, of_io};
use crate::net::link::{self, Wire};
use crate::net::request::answer_within;
use crate::runtime::{self, BoxFuture};

/// The time between two pings on a connection with requests in progress. etcd forbids less than 5 s.
const PING: Duration = Duration::from_secs(10);

/// The link of a client to its cluster.
pub(super) type Link = link::Link<Conn>;

/// A connection to one member. It closes when no request on it waits for an answer any more.
pub(super) struct Conn {
    pub(super) status: Status,
    pub(super) address: String,
    pub(super) client: Client,
    died: Notify,
}

impl Wire for Conn {
    const SERVICE: &'static str = SERVICE;
    type Shared = ();

    async fn connect(link: Arc<Link>, number: u64) -> Result<Arc<Self>> {
        connect(&link, number).await.map(Arc::new)
    }

    fn give_up(&self) {
        self.status.give_up();
        self.died.notify_waiters();
    }
}

impl Connection for Conn {
    fn status(&self) -> &Status {
        &self.status
    }
}

impl Conn {
    fn new(number: u64, address: String, client: Client) -> Self {
        Self { status: Status::new(number), address, client, died: Notify::new() }
    }

    /// Resolves when the connection is given up.
    pub(super) async fn gone(&self) {
        let mut died = std::pin::pin!(self.died.notified());
        died.as_mut().enable();
        if !self.status.is_given_up() {
            died.await;
        }
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({}, {})", self.status.number(), self.address)
    }
}

/// Returns the time for connecting to one endpoint. With several endpoints, there is time for all of them.
fn dial_limit(link: &Link) -> Duration {
    let count = u32::try_from(link.addresses.len()).unwrap_or(1).max(1);
    link.config.values().time("dial_timeout").unwrap_or(link.config.connect_timeout() / count)
}

/// Connects to one of the endpoints. Each is tried once, the one of this number first, counted from 1.
async fn connect(link: &Link, number: u64) -> Result<Conn> {
    let (count, first) = (link.addresses.len(), usize::try_from(number).unwrap_or(1) - 1);
    let limit = dial_limit(link);
    let mut failed = Error::unavailable("etcd has no endpoint");
    for turn in 0..count {
        let at = first.wrapping_add(turn) % count;
        let address = &link.addresses[at];
        let made = answer_within(limit, made(link, at)).await;
        match made.unwrap_or_else(|| Err(connect_timeout(SERVICE, address, limit, "dial_timeout"))) {
            Ok(client) => return Ok(Conn::new(number, address.to_string(), client)),
            // A login that is refused here is refused everywhere.
            Err(error) if !error.is_temporary() => return Err(error),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Makes a connection to one endpoint.
async fn made(link: &Link, at: usize) -> Result<Client> {
    let address = &link.addresses[at];
    let name = address.to_string();
    let stream = address.connect().await.map_err(|error| of_io(SERVICE, &error, address))?;
    let unusable = |why: &dyn std::fmt::Display| Error::invalid(format!("etcd at {name} has no usable address: {why}"));
    let (send, conn) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(link.config.connect_timeout())
        .handshake(TokioIo::new(CoalescingStream::new(stream)))
        .await
        .map_err(|why| Error::unavailable(format!("etcd at {name} can't be reached: {why}")))?;
    // It ends when the last clone of `send` is dropped.
    runtime::spawn(async move { drop(conn.await) });
    let requests = Requests {
        send,
        scheme: if address.has_tls() { Scheme::HTTPS } else { Scheme::HTTP },
        authority: name.parse().map_err(|why: InvalidUri| unusable(&why))?,
    };
    let client = Client::from_channel(Channel::Custom(BoxCloneSyncService::new(requests)), Some(options(link))).await;
    let client = client.map_err(|error| of_request(&error, &name).error)?;
    address.was_reached();
    Ok(client)
}

/// Returns the login and the crate's options.
fn options(link: &Link) -> ConnectOptions {
    let values = link.config.values();
    let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
    match values.text("username") {
        Some(user) => options.with_user(user, values.text("password").unwrap_or_default()),
        None => options,
    }
}

/// A sender of requests on one connection and no other. A lost connection is not replaced silently: requests that were
/// sent on it may still be applied, and later ones are sent on another connection.
#[derive(Clone)]
struct Requests {
    send: SendRequest<Body>,
    scheme: Scheme,
    authority: Authority,
}

impl Service<Request<Body>> for Requests {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, std::result::Result<Response<Body>, BoxError>>;

    /// Returns ready always: only for a request that it got can the connection say that it wasn't sent.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        match Uri::from_parts(uri) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(why) => return Box::pin(std::future::ready(Err(why.into()))),
        }
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("dlock/", env!("CARGO_PKG_VERSION"))));
        let answer = self.send.try_send_request(request);
        Box::pin(async move {
            match answer.await {
                Ok(answer) => Ok(answer.map(Body::new)),
                Err(error) if error.message().is_some() => {
                    Err(std::io::Error::new(ErrorKind::NotConnected, "the connection was lost").into())
                }
                Err(error) => Err(error.into_error().into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::failure::Outcome;

    #[tokio::test]
    async fn what_is_asked_on_a_lost_connection_was_never_sent() {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (send, conn) = http2::handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        drop(theirs);
        let _ = conn.await;
        let requests = Requests { send, scheme: Scheme::HTTP, authority: Authority::from_static("e:2379") };
        let channel = Channel::Custom(BoxCloneSyncService::new(requests));
        let client = Client::from_channel(channel, None).await.unwrap();
        let error = client.kv_client().get("k", None).await.unwrap_err();
        assert_eq!(of_request(&error, "e:2379").outcome, Outcome::TryElsewhere, "{error:?}");
    }
}
