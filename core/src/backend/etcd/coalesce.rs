//! Fewer packets: the parts of one request are sent together.
//!
//! HTTP/2 flushes a request's head before its body, and the server wakes up for both. So a flush waits, as with TCP's
//! option "cork": until every other task that is ready has run, and may have sent more.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The number of bytes that are held back at the most.
const LIMIT: usize = 16 * 1024;

/// A stream whose flushes wait once.
pub(super) struct CoalescingStream<S> {
    stream: S,
    held: Vec<u8>,
    /// The number of held bytes that are written.
    written: usize,
    /// True if the flush in progress has waited.
    waited: bool,
}

impl<S: AsyncWrite + Unpin> CoalescingStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), written: 0, waited: false }
    }

    /// Writes the held bytes.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for CoalescingStream<S> {
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

impl<S: AsyncRead + Unpin> AsyncRead for CoalescingStream<S> {
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
        let mut coalescing = CoalescingStream::new(ours);
        let mut bytes = [0; 64];
        for _ in 0..3 {
            coalescing.write_all(b"head").await.unwrap();
            let mut first = true;
            std::future::poll_fn(|cx| {
                let flushed = Pin::new(&mut coalescing).poll_flush(cx);
                assert_eq!(flushed.is_pending(), first, "{flushed:?}");
                if std::mem::take(&mut first) {
                    assert!(Pin::new(&mut coalescing).poll_write(cx, b"body").is_ready());
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
            let mut coalescing = CoalescingStream::new(ours);
            for part in sent.chunks(999) {
                coalescing.write_all(part).await.unwrap();
                assert!(coalescing.held.len() < 2 * LIMIT);
            }
            coalescing.shutdown().await.unwrap();
        });
        let mut arrived = Vec::new();
        theirs.read_to_end(&mut arrived).await.unwrap();
        sender.await.unwrap();
        assert!(arrived == all);
    }
}
