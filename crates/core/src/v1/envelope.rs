//! One binary frame.

use super::varint;
use super::welcome::{ResumeFail, Welcome};

/// Longest key by which a repeated message is recognised.
pub const KEY_BYTES_MAX: usize = 64;

const TAG_CRITICAL_MAX: u8 = 0x3f;
const TAG_IGNORABLE_MAX: u8 = 0x7f;

const FIELD_TTL: u8 = 1;
const FIELD_ACK_NOW: u8 = 2;
const FIELD_KEY: u8 = 3;

/// One binary frame: a tag and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// A binary message.
    Binary(&'a [u8]),
    /// Says how far messages were handled.
    Ack(Ack),
    /// Asks for an ACK at once.
    Probe,
    /// Answers a PROBE.
    ProbeAck(Ack),
    /// The sender's counter moves on without data.
    Skip {
        /// By so many messages, at least one.
        count: u64,
        /// What became of them.
        reason: SkipReason,
    },
    /// Says something of the next message.
    Meta(Meta<'a>),
    /// A message was refused; an ACK may pass it all the same.
    Nack {
        /// Which.
        seq: u64,
        /// Why.
        code: NackCode,
        /// Why, in words.
        reason: &'a str,
    },
    /// The gateway's first frame.
    Welcome(Welcome<'a>),
    /// There is nothing to come back to; a Close follows.
    ResumeFail(ResumeFail),
    /// The last word before a clean close.
    Bye {
        /// Messages that the sender of this has received.
        received: u64,
        /// Messages that it has sent.
        sent: u64,
    },
    /// Something newer that may be ignored.
    Ignorable(u8),
}

/// Everything up to `handled` was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Messages handled since the session began.
    pub handled: u64,
    /// How much may be under way from now on, if that changes: messages, and KiB.
    pub window: Option<(u64, u64)>,
}

/// What became of messages that are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// Their time was over before they left.
    Expired,
    /// They were dropped.
    Dropped,
    /// A reason that is newer than this reader.
    Other(u8),
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NackCode {
    /// Its time was over before the app took it.
    Expired,
    /// The app is gone.
    AppGone,
    /// A code that is newer than this reader.
    Other(u64),
}

/// Something about the next message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta<'a> {
    /// If it can't be passed on within so many milliseconds it is worth nothing.
    pub ttl_ms: Option<u64>,
    /// It wants its ACK as soon as it was handled.
    pub ack_now: bool,
    /// The same for a message that is sent again by its author.
    pub key: Option<&'a [u8]>,
}

/// What is wrong with a frame; the connection is closed with 4400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// No tag.
    Empty,
    /// It ends too early.
    Truncated,
    /// Something stands behind its end.
    Trailing,
    /// A number that is too large or not in its shortest form.
    Number,
    /// A text that is not UTF-8.
    Text,
    /// A value that means nothing, such as a SKIP of none.
    Value,
    /// A tag below 0x40 that this reader does not know.
    UnknownTag(u8),
    /// A tag from 0x80 on.
    ReservedTag(u8),
}

impl EnvelopeError {
    /// Returns what the Close frame and the log say.
    pub fn as_str(self) -> &'static str {
        match self {
            EnvelopeError::Empty => "envelope without a tag",
            EnvelopeError::Truncated => "envelope cut off",
            EnvelopeError::Trailing => "envelope too long",
            EnvelopeError::Number => "invalid number in an envelope",
            EnvelopeError::Text => "invalid text in an envelope",
            EnvelopeError::Value => "invalid value in an envelope",
            EnvelopeError::UnknownTag(_) => "unknown envelope",
            EnvelopeError::ReservedTag(_) => "reserved envelope",
        }
    }
}

impl SkipReason {
    fn from_byte(byte: u8) -> SkipReason {
        match byte {
            0 => SkipReason::Expired,
            1 => SkipReason::Dropped,
            other => SkipReason::Other(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            SkipReason::Expired => 0,
            SkipReason::Dropped => 1,
            SkipReason::Other(byte) => byte,
        }
    }
}

impl NackCode {
    fn from_number(number: u64) -> NackCode {
        match number {
            1 => NackCode::Expired,
            2 => NackCode::AppGone,
            other => NackCode::Other(other),
        }
    }

    fn number(self) -> u64 {
        match self {
            NackCode::Expired => 1,
            NackCode::AppGone => 2,
            NackCode::Other(number) => number,
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads the payload of a binary frame.
    ///
    /// # Errors
    /// It breaks the rules of PROTOCOL.md.
    pub fn parse(frame: &'a [u8]) -> Result<Envelope<'a>, EnvelopeError> {
        let (&tag, mut body) = frame.split_first().ok_or(EnvelopeError::Empty)?;
        let rest = &mut body;
        let envelope = match tag {
            0x00 => return Ok(Envelope::Binary(body)),
            0x01 => Envelope::Ack(Ack::read(rest)?),
            0x02 => Envelope::Probe,
            0x03 => Envelope::ProbeAck(Ack::read(rest)?),
            0x04 => {
                let count = varint::read(rest)?;
                if count == 0 {
                    return Err(EnvelopeError::Value);
                }
                Envelope::Skip { count, reason: SkipReason::from_byte(read_byte(rest)?) }
            }
            0x05 => Envelope::Meta(Meta::read(rest)?),
            0x06 => {
                let (seq, code) = (varint::read(rest)?, NackCode::from_number(varint::read(rest)?));
                let reason = str::from_utf8(std::mem::take(rest)).map_err(|_| EnvelopeError::Text)?;
                Envelope::Nack { seq, code, reason }
            }
            0x08 => Envelope::Welcome(Welcome::read(rest)?),
            0x09 => Envelope::ResumeFail(ResumeFail::read(rest)?),
            0x0a => Envelope::Bye { received: varint::read(rest)?, sent: varint::read(rest)? },
            0x07 | 0x0b..=TAG_CRITICAL_MAX => return Err(EnvelopeError::UnknownTag(tag)),
            0x40..=TAG_IGNORABLE_MAX => return Ok(Envelope::Ignorable(tag)),
            0x80..=0xff => return Err(EnvelopeError::ReservedTag(tag)),
        };
        if rest.is_empty() { Ok(envelope) } else { Err(EnvelopeError::Trailing) }
    }

    /// Appends tag and body to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Envelope::Binary(payload) => {
                out.push(0x00);
                out.extend_from_slice(payload);
            }
            Envelope::Ack(ack) => {
                out.push(0x01);
                ack.write(out);
            }
            Envelope::Probe => out.push(0x02),
            Envelope::ProbeAck(ack) => {
                out.push(0x03);
                ack.write(out);
            }
            Envelope::Skip { count, reason } => {
                out.push(0x04);
                varint::write(out, *count);
                out.push(reason.byte());
            }
            Envelope::Meta(meta) => {
                out.push(0x05);
                meta.write(out);
            }
            Envelope::Nack { seq, code, reason } => {
                out.push(0x06);
                varint::write(out, *seq);
                varint::write(out, code.number());
                out.extend_from_slice(reason.as_bytes());
            }
            Envelope::Welcome(welcome) => {
                out.push(0x08);
                welcome.write(out);
            }
            Envelope::ResumeFail(fail) => {
                out.push(0x09);
                fail.write(out);
            }
            Envelope::Bye { received, sent } => {
                out.push(0x0a);
                varint::write(out, *received);
                varint::write(out, *sent);
            }
            Envelope::Ignorable(tag) => out.push(*tag),
        }
    }
}

pub(super) fn read_byte(input: &mut &[u8]) -> Result<u8, EnvelopeError> {
    let (&byte, rest) = input.split_first().ok_or(EnvelopeError::Truncated)?;
    *input = rest;
    Ok(byte)
}

/// Takes a length and as many bytes.
pub(super) fn read_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
    let len = usize::try_from(varint::read(input)?).map_err(|_| EnvelopeError::Truncated)?;
    let (bytes, rest) = input.split_at_checked(len).ok_or(EnvelopeError::Truncated)?;
    *input = rest;
    Ok(bytes)
}

pub(super) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Ack {
    fn read(input: &mut &[u8]) -> Result<Ack, EnvelopeError> {
        let handled = varint::read(input)?;
        let window = match input.is_empty() {
            true => None,
            false => Some((varint::read(input)?, varint::read(input)?)),
        };
        Ok(Ack { handled, window })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::write(out, self.handled);
        if let Some((messages, kib)) = self.window {
            varint::write(out, messages);
            varint::write(out, kib);
        }
    }
}

impl<'a> Meta<'a> {
    fn read(input: &mut &'a [u8]) -> Result<Meta<'a>, EnvelopeError> {
        let mut meta = Meta::default();
        while !input.is_empty() {
            let field = read_byte(input)?;
            let mut value = read_bytes(input)?;
            match field {
                FIELD_TTL => {
                    meta.ttl_ms = Some(varint::read(&mut value)?);
                    if !value.is_empty() {
                        return Err(EnvelopeError::Trailing);
                    }
                }
                FIELD_ACK_NOW => meta.ack_now = true,
                FIELD_KEY if (1..=KEY_BYTES_MAX).contains(&value.len()) => meta.key = Some(value),
                FIELD_KEY => return Err(EnvelopeError::Value),
                // Newer fields say nothing to this reader.
                _ => {}
            }
        }
        Ok(meta)
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(ttl_ms) = self.ttl_ms {
            let mut value = Vec::new();
            varint::write(&mut value, ttl_ms);
            out.push(FIELD_TTL);
            write_bytes(out, &value);
        }
        if self.ack_now {
            out.push(FIELD_ACK_NOW);
            write_bytes(out, &[]);
        }
        if let Some(key) = self.key {
            out.push(FIELD_KEY);
            write_bytes(out, key);
        }
    }
}
