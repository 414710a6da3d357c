//! Bytes on their way out of one socket.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pulsegate_core::{Head, Opcode, write_control, write_message};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::buffer::READ_BYTES_MAX;

thread_local! {
    /// A buffer that messages are put together in, for the next session that has some: one that grows anew for each
    /// batch costs more than the copying.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Small ones are not kept, or the few bytes of a ping would take the place of one that is worth it.
fn give_back(mut buffer: Vec<u8>) {
    if (READ_BYTES_MAX / 4..=2 * READ_BYTES_MAX).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.set(buffer);
    }
}

/// What waits for a socket that is full. It holds no memory while nothing waits.
///
/// Its size is bounded by its caller: a leg is read only while the outbox of the other one is empty, so at
/// most one read buffer waits here, and control frames of our own, of which only a few can be due.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Vec<u8>,
    written: usize,
    /// Where a frame begins: the first that has not begun to be written, or one before it.
    next_frame: usize,
    /// End of the latest control frame that overtook.
    overtaken: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Gives away what waits.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        self.waiting.split_off(self.written)
    }

    /// Writes `bytes` behind what waits: at once if the socket takes them, else the rest is kept. The first
    /// `frame_left` of them end a frame that was begun before. Returns how many bytes the socket took, those that
    /// waited included.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn write(
        &mut self,
        stream: &mut TcpStream,
        bytes: &[u8],
        frame_left: u64,
        cx: &mut Context<'_>,
    ) -> io::Result<usize> {
        if !self.waiting.is_empty() {
            // Perhaps only a control frame of our own waits, for which the socket was not tried yet.
            self.waiting.extend_from_slice(bytes);
            return self.flush(stream, cx);
        }
        let mut taken = 0;
        while taken < bytes.len() {
            match Pin::new(&mut *stream).poll_write(cx, &bytes[taken..]) {
                Poll::Ready(Ok(n)) => taken += n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if taken < bytes.len() {
            let first = usize::try_from(frame_left).unwrap_or(usize::MAX);
            self.next_frame = frame_start_at(bytes, first, taken) - taken;
        }
        self.waiting.extend_from_slice(&bytes[taken..]);
        Ok(taken)
    }

    /// Keeps a message behind what waits; written by the next flush.
    pub(super) fn push_message(&mut self, text: bool, parts: &[&[u8]], mask: Option<[u8; 4]>) {
        if self.waiting.capacity() == 0 {
            self.waiting = SPARE.take();
        }
        write_message(&mut self.waiting, text, parts, mask);
    }

    /// Keeps a control frame of our own behind what waits; written by the next flush.
    pub(super) fn push_control(&mut self, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
        write_control(&mut self.waiting, opcode, payload, mask);
    }

    /// Returns how many bytes a control frame would have before it that goes in ahead of waiting data; `None`
    /// if no frame ends within the data, or if another control frame has overtaken it and still waits, so that
    /// a flood of pings can't pile up pongs.
    pub(super) fn overtaking_place(&mut self) -> Option<usize> {
        self.next_frame = frame_start_at(&self.waiting, self.next_frame, self.written);
        let free = self.overtaken <= self.written && self.next_frame < self.waiting.len();
        free.then(|| self.next_frame - self.written)
    }

    /// Puts a control frame behind the frame that is being written, ahead of all others (RFC 6455 section
    /// 5.4 allows it between any two frames); call only if the outbox is empty or has an
    /// [`overtaking_place`](Outbox::overtaking_place).
    pub(super) fn overtake(&mut self, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
        let behind = self.waiting.split_off(self.next_frame);
        write_control(&mut self.waiting, opcode, payload, mask);
        self.overtaken = self.waiting.len();
        self.next_frame = self.overtaken;
        self.waiting.extend_from_slice(&behind);
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
                Poll::Pending => {
                    // The spare buffer is for all; what waits here takes the room that it needs.
                    self.waiting.shrink_to_fit();
                    return Ok(self.written - before);
                }
            }
        }
        let taken = self.written - before;
        // An idle session holds no buffer.
        give_back(std::mem::take(self).waiting);
        Ok(taken)
    }
}

/// Returns the first start of a frame at `place` or behind it, going from frame to frame from the start
/// `from`; beyond the end of `frames` if none begins in them. Their heads are whole and were checked when
/// they were read.
fn frame_start_at(frames: &[u8], mut from: usize, place: usize) -> usize {
    while from < place {
        let Ok(Some(head)) = Head::parse(frames.get(from..).unwrap_or_default()) else { return usize::MAX };
        let payload = usize::try_from(head.payload_len).unwrap_or(usize::MAX);
        from = from.saturating_add(head.head_len).saturating_add(payload);
    }
    from
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
            poll_fn(|cx| Poll::Ready(outbox.write(&mut ours, &chunk, u64::MAX, cx))).await.unwrap();
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

    #[tokio::test]
    async fn messages_are_put_together_in_a_buffer_that_no_session_keeps() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_theirs, _) = listener.accept().await.unwrap();
        let mut flush = async |outbox: &mut Outbox| {
            ours.writable().await.unwrap();
            poll_fn(|cx| Poll::Ready(outbox.flush(&mut ours, cx))).await.unwrap()
        };
        let mut outbox = Outbox::default();
        outbox.push_message(false, &[&[1; READ_BYTES_MAX]], None);
        let room = outbox.waiting.capacity();
        flush(&mut outbox).await;
        assert_eq!((outbox.is_empty(), outbox.waiting.capacity()), (true, 0));
        outbox.push_message(true, &[b"small"], None);
        assert_eq!(outbox.waiting.capacity(), room, "the next one has the same buffer");
        // Until the kernel takes no more: now it waits, and holds what it needs.
        while flush(&mut outbox).await > 0 && outbox.is_empty() {
            outbox.push_message(true, &[b"small"], None);
        }
        assert!(!outbox.is_empty() && outbox.waiting.capacity() < 64, "{}", outbox.waiting.capacity());
    }

    /// What goes behind a control frame of our own is no stall while the socket takes both.
    #[tokio::test]
    async fn data_behind_a_control_frame_goes_out_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let mut outbox = Outbox::default();
        outbox.overtake(Opcode::Ping, b"first", None);
        let taken = poll_fn(|cx| Poll::Ready(outbox.write(&mut ours, b"\x82\x01x", 0, cx))).await.unwrap();
        assert_eq!((taken, outbox.is_empty()), (10, true));
        let mut got = [0; 10];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"\x89\x05first\x82\x01x");
    }

    /// Frames with these payload sizes, each byte of a payload telling which frame it belongs to.
    fn frames(sizes: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (n, &size) in sizes.iter().enumerate() {
            bytes.extend_from_slice(&[0x82, 126]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.resize(bytes.len() + usize::from(size), n as u8);
        }
        bytes
    }

    /// What would be on the wire, and the opcodes of the frames in it, the first of which has begun before.
    fn opcodes(outbox: &Outbox, first: usize) -> Vec<u8> {
        let mut at = first;
        let mut seen = Vec::new();
        while at < outbox.waiting.len() {
            let head = Head::parse(&outbox.waiting[at..]).unwrap().unwrap();
            seen.push(outbox.waiting[at] & 0x0f);
            at += head.head_len + head.payload_len as usize;
        }
        assert_eq!(at, outbox.waiting.len());
        seen
    }

    /// An outbox whose socket took the first `taken` bytes, of which `frame_left` ended an older frame.
    fn stuck(bytes: &[u8], frame_left: usize, taken: usize) -> Outbox {
        let next_frame = frame_start_at(bytes, frame_left, taken) - taken;
        Outbox { waiting: bytes[taken..].to_vec(), next_frame, ..Outbox::default() }
    }

    #[test]
    fn a_pong_overtakes_the_data_that_waits_but_not_the_frame_under_way() {
        let bytes = frames(&[300, 300, 300]);
        for taken in 0..bytes.len() {
            let mut outbox = stuck(&bytes, 0, taken);
            let begun = taken.div_ceil(304);
            let can = outbox.overtaking_place().is_some();
            assert_eq!(can, begun < 3, "after {taken} bytes");
            if can {
                outbox.overtake(Opcode::Pong, b"soon", None);
                let rest = opcodes(&outbox, begun * 304 - taken);
                assert_eq!(rest[0], 10, "after {taken} bytes: {rest:?}");
                assert_eq!(rest.len(), 1 + 3 - begun);
                assert!(outbox.overtaking_place().is_none(), "one at a time");
            }
        }
    }

    #[test]
    fn what_is_written_meanwhile_moves_the_place_on() {
        let mut older = vec![9; 100];
        older.extend_from_slice(&frames(&[300, 300]));
        let mut outbox = stuck(&older, 100, 40);
        outbox.written = 60 + 7;
        assert_eq!(outbox.overtaking_place(), Some(60 + 304 - 67));
        outbox.overtake(Opcode::Pong, b"", None);
        assert_eq!(opcodes(&outbox, 60), [2, 10, 2]);
        outbox.written = outbox.overtaken;
        assert!(outbox.overtaking_place().is_some(), "the first pong is out");
        outbox.written = outbox.overtaken + 1;
        assert!(outbox.overtaking_place().is_none(), "the last frame is under way");
    }

    #[test]
    fn a_frame_longer_than_what_waits_leaves_no_place() {
        let mut outbox = stuck(&[7; 500], 100_000, 10);
        assert!(outbox.overtaking_place().is_none());
        let mut huge = vec![0x82, 127];
        huge.extend_from_slice(&u64::MAX.to_be_bytes());
        let mut outbox = stuck(&huge, 0, 1);
        assert!(outbox.overtaking_place().is_none());
    }
}
