//! Connections to servers: addresses, sockets that no child of fork keeps open, and the one TLS stack.

pub(crate) mod connection;
mod dial;
mod resolve;
mod tls;

use std::io::Result;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

#[cfg(unix)]
use rustix::io::Errno;
#[cfg(unix)]
use socket2::{Domain, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(not(unix))]
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use self::tls::Tls;
use crate::config::{Config, host_port};
use crate::error;
#[cfg(unix)]
use crate::runtime::close_on_fork::CloseOnFork;

#[cfg(unix)]
type Socket = CloseOnFork<TcpStream>;
#[cfg(not(unix))]
type Socket = TcpStream;

/// A connection, in clear or by TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One server and how it is reached.
pub(crate) struct Address {
    host: String,
    port: u16,
    tls: Option<Arc<Tls>>,
    reached: AtomicBool,
}

impl Address {
    /// From `host` or `host:port` and the TLS options of the configuration.
    ///
    /// # Errors
    /// `Invalid` for an address or a certificate that can't be used.
    pub(crate) fn new(text: &str, default_port: u16, config: &Config) -> error::Result<Self> {
        let (host, port) = host_port(text)?;
        let values = config.values();
        let tls = if values.flag("tls") == Some(true) { Some(Arc::new(Tls::new(&host, values)?)) } else { None };
        Ok(Self { host, port: port.unwrap_or(default_port), tls, reached: AtomicBool::new(false) })
    }

    /// The same server, asked by TLS for this protocol: some serve it only to those who name it.
    #[cfg(feature = "etcd")]
    pub(crate) fn with_alpn(mut self, protocol: &[u8]) -> Self {
        self.tls = self.tls.map(|tls| Arc::new(Tls::clone(&tls).with_alpn(protocol)));
        self
    }

    /// Whether it is reached by TLS.
    #[cfg(feature = "etcd")]
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What to look at besides, when it gives no answer.
    pub(crate) fn hint(&self) -> &'static str {
        if self.tls.is_some() { ", and has it TLS on this port" } else { "" }
    }

    /// The server behind it has been used: what it can't agree on by TLS from now on may be a rotation of certificates
    /// that isn't complete yet.
    pub(crate) fn was_reached(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Whether its certificates were good once.
    pub(crate) fn reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Connects: the name is resolved and the certificates are read for each connection anew. The caller bounds the
    /// time.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>> {
        let addresses = resolve::resolve(&self.host, self.port).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(dial::dial(addresses).await?)) };
        let (tls, name) = tls.clone().read_anew().await?;
        Ok(Box::new(tls.connect(name, dial::dial(addresses).await?).await?))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::config::join_host(&self.host, Some(self.port)))
    }
}

#[cfg(unix)]
async fn socket(address: SocketAddr) -> Result<Socket> {
    let mut socket = CloseOnFork::open(|| {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(true)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
            _ => TcpStream::from_std(socket.into()),
        }
    })?;
    socket.owner().writable().await?;
    socket.owner().take_error()?.map_or(Ok(socket), Err)
}

#[cfg(not(unix))]
async fn socket(address: SocketAddr) -> Result<Socket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

#[cfg(unix)]
impl AsyncRead for CloseOnFork<TcpStream> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(self.owner()).poll_read(cx, buf)
    }
}

#[cfg(unix)]
impl AsyncWrite for CloseOnFork<TcpStream> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(self.owner()).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(self.owner()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(self.owner()).poll_shutdown(cx)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "a start by fork has no safe form")]
    fn a_child_of_fork_keeps_what_is_not_ours() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
                    while !over.load(Ordering::Relaxed) {
                        runtime.block_on(socket(nobody)).unwrap_err();
                    }
                });
            }
            let failed: Vec<_> = (0..1000)
                .filter_map(|_| {
                    let mut command = Command::new("true");
                    // SAFETY: it does nothing.
                    unsafe { command.pre_exec(|| Ok(())) };
                    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().err()
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            assert!(failed.is_empty(), "{} of 1000: {:?}", failed.len(), failed[0]);
        });
    }
}
