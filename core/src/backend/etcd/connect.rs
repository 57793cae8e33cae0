//! How a connection is made: our own socket and TLS under the crate's HTTP/2, the login on top.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::rt::TokioIo;
use tonic::transport::{Endpoint, Uri};
use tower_service::Service;

use super::error::{of_io, of_request};
use super::link::{Conn, Link};
use crate::backend::BoxFuture;
use crate::clock;
use crate::error::{Error, Result};
use crate::net::Stream;

/// How often a connection with requests under way is asked whether it lives. More often than every 5 s etcd forbids.
const PING: Duration = Duration::from_secs(10);

type Io = TokioIo<Box<dyn Stream>>;

/// Makes a connection to one of the endpoints: each is tried once, the one of this number first.
pub(super) async fn connect(link: &Link, number: u64) -> Result<Conn> {
    let count = link.addresses.len();
    let limit = link.dial_limit();
    let mut failed = Error::unavailable("etcd has no endpoint");
    for turn in 0..count {
        let at = usize::try_from(number).unwrap_or(0).wrapping_add(turn) % count;
        let address = &link.addresses[at];
        let made = tokio::select! {
            biased;
            made = made(link, at) => made,
            () = clock::sleep(limit) => Err(Error::unavailable(format!(
                "etcd at {address} didn't complete a connection within {limit:?}; raise dial_timeout, or see whether \
                 it is overloaded or stopped{}",
                address.hint()
            ))),
        };
        match made {
            Ok(client) => return Ok(Conn::new(number, address.to_string(), client)),
            // A login that is refused here is refused everywhere.
            Err(error) if !error.is_temporary() => return Err(error),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn made(link: &Link, at: usize) -> Result<Client> {
    let address = &link.addresses[at];
    let name = address.to_string();
    let stream = address.connect().await.map_err(|error| of_io(&error, &name))?;
    let place = |scheme: &str| format!("{scheme}://{name}").parse::<Uri>();
    let unusable = |why: &dyn std::fmt::Display| Error::invalid(format!("etcd at {name} has no usable address: {why}"));
    // The scheme is for display: by which way it is reached the socket knows.
    let mut endpoint = Endpoint::from(place("http").map_err(|why| unusable(&why))?)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(link.config.connect_timeout());
    if address.has_tls() {
        endpoint = endpoint.origin(place("https").map_err(|why| unusable(&why))?);
    }
    let endpoint = endpoint.user_agent(concat!("dlock/", env!("CARGO_PKG_VERSION"))).map_err(|why| unusable(&why))?;
    let channel = endpoint.connect_with_connector(Once(Arc::new(Mutex::new(Some(stream))))).await;
    let channel = channel.map_err(|why| Error::unavailable(format!("etcd at {name} can't be reached: {why}")))?;
    let client = Client::from_channel(Channel::Tonic(channel), Some(options(link))).await;
    client.map_err(|error| of_request(&error, &name).error)
}

fn options(link: &Link) -> ConnectOptions {
    let values = link.config.values();
    let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
    match values.text("username") {
        Some(user) => options.with_user(user, values.text("password").unwrap_or_default()),
        None => options,
    }
}

/// Gives out one socket, once: a connection that is lost is not made again in silence, since what was sent on it may
/// still be done, and what is asked then is asked elsewhere.
#[derive(Clone)]
struct Once(Arc<Mutex<Option<Box<dyn Stream>>>>);

impl Service<Uri> for Once {
    type Response = Io;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<Io>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let gone = || std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection was lost");
        Box::pin(std::future::ready(stream.map(TokioIo::new).ok_or_else(gone)))
    }
}
