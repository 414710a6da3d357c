//! Bytes on their way out of one socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pulsegate_core::{CloseFrame, Opcode, write_control};
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

    /// Keeps a Close frame behind what waits.
    pub(super) fn push_close(&mut self, frame: Option<&CloseFrame>, mask: Option<[u8; 4]>) {
        let mut payload = Vec::new();
        if let Some(frame) = frame {
            frame.write_payload(&mut payload);
        }
        self.push_control(Opcode::Close, &payload, mask);
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
