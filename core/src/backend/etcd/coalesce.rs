//! Fewer packets: what belongs to one request goes out together.
//!
//! HTTP/2 flushes a request's head before its body, and the server is woken for both. As with the option of TCP of this
//! name, a flush waits; here no longer than until whatever else is ready has run, and may have had more to send.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is held back at the most, in bytes.
const LIMIT: usize = 16 * 1024;

pub(super) struct Cork<S> {
    stream: S,
    held: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// Whether the flush under way has waited.
    waited: bool,
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), written: 0, waited: false }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.written < self.held.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held[self.written..]))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                more => self.written += more,
            }
        }
        self.held.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.held.len() >= LIMIT {
            ready!(self.poll_out(cx))?;
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.held.is_empty() && !std::mem::replace(&mut self.waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_out(cx))?;
        self.waited = false;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_until_the_flush_has_waited_goes_out_together() {
        let (ours, mut theirs) = duplex(64);
        let mut cork = Cork::new(ours);
        let mut bytes = [0; 64];
        for _ in 0..3 {
            cork.write_all(b"head").await.unwrap();
            let mut first = true;
            std::future::poll_fn(|cx| {
                let flushed = Pin::new(&mut cork).poll_flush(cx);
                assert_eq!(flushed.is_pending(), first, "{flushed:?}");
                if std::mem::take(&mut first) {
                    assert!(Pin::new(&mut cork).poll_write(cx, b"body").is_ready());
                }
                flushed.map(Result::unwrap)
            })
            .await;
            let count = theirs.read(&mut bytes).await.unwrap();
            assert_eq!(bytes[..count], *b"headbody");
        }
    }

    #[tokio::test]
    async fn whatever_the_size_all_arrives_in_order_and_the_end_too() {
        let (ours, mut theirs) = duplex(100);
        let all: Vec<u8> = (0..5 * LIMIT).map(|n| (n % 251) as u8).collect();
        let sent = all.clone();
        let sender = tokio::spawn(async move {
            let mut cork = Cork::new(ours);
            for part in sent.chunks(999) {
                cork.write_all(part).await.unwrap();
                assert!(cork.held.len() < 2 * LIMIT);
            }
            cork.shutdown().await.unwrap();
        });
        let mut arrived = Vec::new();
        theirs.read_to_end(&mut arrived).await.unwrap();
        sender.await.unwrap();
        assert!(arrived == all);
    }
}
