//! Bytes on their way out of one socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pulsegate_core::{Opcode, write_control};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// What waits for a socket that is full. It holds no memory while nothing waits.
///
/// Its size is bounded by its caller: a leg is read only while the outbox of the other one is empty, so at
/// most one read buffer waits here, and control frames of our own, of which only a few can be due.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Vec<u8>,
    written: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes `bytes` behind what waits: at once if the socket takes them, else the rest is kept. Returns how
    /// many the socket took.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn write(
        &mut self,
        stream: &mut TcpStream,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> io::Result<usize> {
        let mut taken = 0;
        if self.waiting.is_empty() {
            while taken < bytes.len() {
                match Pin::new(&mut *stream).poll_write(cx, &bytes[taken..]) {
                    Poll::Ready(Ok(n)) => taken += n,
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
            }
        }
        self.waiting.extend_from_slice(&bytes[taken..]);
        Ok(taken)
    }

    /// Keeps a control frame of our own behind what waits; written by the next flush.
    pub(super) fn push_control(&mut self, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
        write_control(&mut self.waiting, opcode, payload, mask);
    }

    /// Writes what waits, as far as the socket takes it. Returns how many bytes it took.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn flush(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> io::Result<usize> {
        let before = self.written;
        while self.written < self.waiting.len() {
            match Pin::new(&mut *stream).poll_write(cx, &self.waiting[self.written..]) {
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(self.written - before),
            }
        }
        let taken = self.written - before;
        // An idle session holds no buffer.
        *self = Outbox::default();
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_waits_goes_out_in_order_and_leaves_no_memory_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        let chunk: Vec<u8> = (0..65_536u32).map(|n| (n % 251) as u8).collect();
        // Until the kernel takes no more.
        while outbox.is_empty() {
            poll_fn(|cx| Poll::Ready(outbox.write(&mut ours, &chunk, cx))).await.unwrap();
            expected.extend_from_slice(&chunk);
            tokio::task::yield_now().await;
        }
        outbox.push_control(Opcode::Ping, b"behind", None);
        expected.extend_from_slice(b"\x89\x06behind");
        let read = tokio::spawn(async move {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.unwrap();
            got
        });
        poll_fn(|cx| match outbox.flush(&mut ours, cx) {
            Ok(_) if outbox.is_empty() => Poll::Ready(()),
            Ok(_) => Poll::Pending,
            Err(error) => panic!("{error}"),
        })
        .await;
        assert_eq!((outbox.waiting.capacity(), outbox.written), (0, 0));
        drop(ours);
        assert!(read.await.unwrap() == expected, "what arrived is not what was written");
    }
}
