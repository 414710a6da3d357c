//! WebSocket frames by hand, for a load and an app that must cost less than what they measure.

use anyhow::{Context, Result, anyhow, bail, ensure};
use pulsegate_core::{Head, Opcode};

/// Longest head (RFC 6455 section 5.2).
const HEAD_MAX: usize = 14;
/// Nothing that we measure sends longer control frames; nothing is allowed to (RFC 6455 section 5.5).
const CONTROL_MAX: usize = 125;
/// One key for all: the load is no browser, and a proxy that looks at keys must not profit from a zero.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// A message begins with its number, by which lost, doubled and mixed up ones are found.
pub(crate) const NUMBER_BYTES: usize = 8;

/// Close with code 1000.
pub(crate) const CLOSE_NORMAL: [u8; 2] = [0x03, 0xE8];

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Applies a mask, or takes it away.
pub(crate) fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("a chunk has 8 bytes"));
        chunk.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends the head of a whole message or of a control frame.
pub(crate) fn push_head(out: &mut Vec<u8>, opcode: Opcode, length: usize, is_masked: bool) {
    let flag = if is_masked { MASKED } else { 0 };
    out.push(FIN | opcode.bits());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.push(flag | short),
        (_, Ok(medium)) => {
            out.push(flag | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(flag | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if is_masked {
        out.extend_from_slice(&KEY);
    }
}

/// Appends a frame as a client sends it.
pub(crate) fn push_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    push_head(out, opcode, payload.len(), true);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], KEY);
}

/// Messages that are sent by one write: built once, only their numbers change.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    frame: usize,
    payload: usize,
}

impl Batch {
    /// `count` messages of `payload` bytes each.
    pub(crate) fn new(payload: usize, count: usize) -> Batch {
        assert!(payload >= NUMBER_BYTES, "a message has room for its number");
        let mut bytes = Vec::with_capacity(count * (payload + 14));
        let filling: Vec<u8> = (0..payload).map(|at| (at * 7) as u8).collect();
        for _ in 0..count {
            push_masked(&mut bytes, Opcode::Binary, &filling);
        }
        let frame = bytes.len() / count.max(1);
        Batch { bytes, frame, payload }
    }

    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    /// How many messages it has.
    pub(crate) fn count(&self) -> u64 {
        (self.bytes.len() / self.frame) as u64
    }

    /// Returns the bytes, numbered from `first` on.
    pub(crate) fn numbered(&mut self, first: u64) -> &[u8] {
        let at = self.frame - self.payload;
        for (frame, number) in self.bytes.chunks_exact_mut(self.frame).zip(first..) {
            let field = &mut frame[at..at + NUMBER_BYTES];
            field.copy_from_slice(&number.to_be_bytes());
            mask(field, KEY);
        }
        &self.bytes
    }
}

/// What a server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    Message { length: u64, number: u64 },
    Ping(&'a [u8]),
    Pong,
    Close,
}

/// Reads the frames of a server; keeps no payload but that of control frames and the number of a message.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: Vec<u8>,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    kept: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    length: u64,
    left: u64,
}

impl Reader {
    /// Reads all of `bytes` and tells what ended in them.
    ///
    /// # Errors
    /// They are no frames of a server, or `found` says so.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(Found<'_>) -> Result<()>,
    ) -> Result<()> {
        loop {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.head(&mut bytes)? {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            let taken = usize::try_from(frame.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (payload, rest) = bytes.split_at(taken);
            let room = if frame.opcode.is_control() { CONTROL_MAX } else { NUMBER_BYTES };
            let keep = payload.len().min(room.saturating_sub(self.kept.len()));
            self.kept.extend_from_slice(&payload[..keep]);
            bytes = rest;
            frame.left -= taken as u64;
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(());
            }
            self.frame = None;
            let told = found(frame.told(&self.kept)?);
            self.kept.clear();
            told?;
        }
    }

    /// Takes a head from the front of `bytes`; `None` when it is not all there yet.
    fn head(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>> {
        let before = self.head.len();
        let more = bytes.len().min(HEAD_MAX - before);
        self.head.extend_from_slice(&bytes[..more]);
        let head = parse(&self.head)?;
        let taken = head.map_or(more, |head| head.head_len - before);
        *bytes = &bytes[taken..];
        let Some(Head { opcode, payload_len: length, reserved, mask, .. }) = head else { return Ok(None) };
        ensure!(reserved == 0 && mask.is_none(), "a frame that no server may send");
        self.head.clear();
        Ok(Some(Frame { opcode, length, left: length }))
    }
}

fn parse(bytes: &[u8]) -> Result<Option<Head>> {
    Head::parse(bytes).map_err(|violation| anyhow!("{}", violation.as_str()))
}

impl Frame {
    fn told(self, kept: &[u8]) -> Result<Found<'_>> {
        Ok(match self.opcode {
            Opcode::Binary => {
                let Ok(number) = kept.try_into() else { bail!("a message without a number") };
                Found::Message { length: self.length, number: u64::from_be_bytes(number) }
            }
            Opcode::Close => Found::Close,
            Opcode::Ping => Found::Ping(kept),
            Opcode::Pong => Found::Pong,
            Opcode::Continuation | Opcode::Text => {
                bail!("a frame of kind {:?}, which nobody sent", self.opcode)
            }
        })
    }
}

/// One frame of a client as the app reads it.
#[derive(Debug)]
pub(crate) struct Masked<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) key: [u8; 4],
    pub(crate) payload: &'a [u8],
    /// Bytes of head and payload together.
    pub(crate) total: usize,
}

/// Returns the frame that `bytes` begin with; `None` when it is not all there yet.
///
/// # Errors
/// It is not masked.
pub(crate) fn masked(bytes: &[u8]) -> Result<Option<Masked<'_>>> {
    let Some(head) = parse(bytes)? else { return Ok(None) };
    let key = head.mask.context("a client's frame is masked")?;
    let total = head.head_len.saturating_add(usize::try_from(head.payload_len)?);
    let Some(payload) = bytes.get(head.head_len..total) else { return Ok(None) };
    Ok(Some(Masked { opcode: head.opcode, key, payload, total }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echoed(batch: &[u8]) -> Vec<u8> {
        let (mut at, mut out) = (0, Vec::new());
        while let Some(frame) = masked(&batch[at..]).unwrap() {
            push_head(&mut out, frame.opcode, frame.payload.len(), false);
            let start = out.len();
            out.extend_from_slice(frame.payload);
            mask(&mut out[start..], frame.key);
            at += frame.total;
        }
        assert_eq!(at, batch.len());
        out
    }

    #[test]
    fn an_echo_is_read_whole_wherever_the_reads_split() {
        for (payload, step) in [(32, 1), (32, 7), (1024, 5), (65_536, 1000), (70_000, 70_001)] {
            let mut batch = Batch::new(payload, 3);
            let bytes = echoed(batch.numbered(41));
            let (mut reader, mut numbers) = (Reader::default(), Vec::new());
            for part in bytes.chunks(step) {
                let told = reader.feed(part, |found| {
                    let Found::Message { length, number } = found else { bail!("{found:?}") };
                    assert_eq!(length, payload as u64);
                    numbers.push(number);
                    Ok(())
                });
                told.unwrap();
            }
            assert_eq!(numbers, [41, 42, 43]);
        }
    }

    #[test]
    fn control_frames_are_told_between_messages() {
        let mut bytes = Vec::new();
        for (opcode, payload) in
            [(Opcode::Ping, &b"now"[..]), (Opcode::Pong, b""), (Opcode::Close, &CLOSE_NORMAL)]
        {
            push_head(&mut bytes, opcode, payload.len(), false);
            bytes.extend_from_slice(payload);
        }
        let mut told = Vec::new();
        let fine = Reader::default().feed(&bytes, |found| {
            told.push(format!("{found:?}"));
            Ok(())
        });
        fine.unwrap();
        assert_eq!(told, ["Ping([110, 111, 119])", "Pong", "Close"]);
    }

    #[test]
    fn a_masked_frame_of_a_server_is_refused() {
        let mut bytes = Vec::new();
        push_masked(&mut bytes, Opcode::Binary, &[0; 32]);
        assert!(Reader::default().feed(&bytes, |_| Ok(())).is_err());
    }
}
