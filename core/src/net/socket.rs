//! Sockets that no child of fork keeps open.

use std::io::Result;
use std::net::SocketAddr;
#[cfg(unix)]
use std::pin::Pin;
#[cfg(unix)]
use std::task::{Context, Poll};

#[cfg(unix)]
use rustix::io::Errno;
#[cfg(unix)]
use socket2::{Domain, Type};
#[cfg(unix)]
use tokio::io::ReadBuf;
use tokio::io::{AsyncRead, AsyncWrite};
#[cfg(not(unix))]
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

#[cfg(unix)]
use crate::runtime::close_on_fork::CloseOnFork;

#[cfg(unix)]
pub(super) type Socket = CloseOnFork<TcpStream>;
#[cfg(not(unix))]
pub(super) type Socket = TcpStream;

/// A connection, in clear or by TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects a socket to one address.
#[cfg(unix)]
pub(super) async fn socket(address: SocketAddr) -> Result<Socket> {
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
pub(super) async fn socket(address: SocketAddr) -> Result<Socket> {
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
