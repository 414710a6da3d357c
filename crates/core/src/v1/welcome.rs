//! How the gateway greets, and how it says that there is nothing to come back to.

use super::EnvelopeError;
use super::envelope::{read_byte, read_bytes, write_bytes};
use super::receive::AckRules;
use super::varint;
use std::time::Duration;

const FLAG_RESUMED: u8 = 1;
const FLAG_COUNTERS: u8 = 1;

/// The gateway's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// This is the session that the client came back to.
    pub resumed: bool,
    /// Messages that the gateway has received in this session.
    pub received: u64,
    /// Number of the next message that the gateway sends.
    pub next: u64,
    /// What to show to come back; the one before is good until a frame arrives on this connection.
    pub token: &'a str,
    /// How long the session is kept without a connection, in seconds.
    pub resume_window_s: u64,
    /// Messages that the client may have under way.
    pub window_messages: u64,
    /// KiB that it may have under way.
    pub window_kib: u64,
    /// When the client is to acknowledge.
    pub ack: AckRules,
    /// The gateway is heard at least so often, in milliseconds.
    pub heartbeat_ms: u64,
    /// Bits of what else the gateway knows; none yet.
    pub features: u64,
}

/// There is nothing to come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeFail {
    /// Why.
    pub code: ResumeFailCode,
    /// Of the session that is over: messages that the gateway had received, and had acknowledgements for.
    pub counters: Option<(u64, u64)>,
}

/// Why a client can't come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeFailCode {
    /// No such session, or not this client's.
    Unknown,
    /// The session is over.
    Ended,
    /// The session does not have what the client lacks, or the client claims what was never sent.
    Position,
    /// The page is of another origin.
    Origin,
    /// A code that is newer than this reader.
    Other(u64),
}

impl ResumeFailCode {
    fn from_number(number: u64) -> ResumeFailCode {
        match number {
            1 => ResumeFailCode::Unknown,
            2 => ResumeFailCode::Ended,
            3 => ResumeFailCode::Position,
            4 => ResumeFailCode::Origin,
            other => ResumeFailCode::Other(other),
        }
    }

    fn number(self) -> u64 {
        match self {
            ResumeFailCode::Unknown => 1,
            ResumeFailCode::Ended => 2,
            ResumeFailCode::Position => 3,
            ResumeFailCode::Origin => 4,
            ResumeFailCode::Other(number) => number,
        }
    }

    /// Returns the code of the Close frame that follows.
    pub fn close(self) -> super::Code {
        match self {
            ResumeFailCode::Unknown => super::Code::TokenUnknown,
            ResumeFailCode::Ended | ResumeFailCode::Position | ResumeFailCode::Other(_) => {
                super::Code::SessionExpired
            }
            ResumeFailCode::Origin => super::Code::OriginMismatch,
        }
    }

    /// Returns the label value used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ResumeFailCode::Unknown => "unknown",
            ResumeFailCode::Ended => "ended",
            ResumeFailCode::Position => "position",
            ResumeFailCode::Origin => "origin",
            ResumeFailCode::Other(_) => "other",
        }
    }
}

impl<'a> Welcome<'a> {
    /// What follows the last field that this reader knows is newer than it, and no error.
    pub(super) fn read(input: &mut &'a [u8]) -> Result<Welcome<'a>, EnvelopeError> {
        let resumed = read_byte(input)? & FLAG_RESUMED != 0;
        let (received, next) = (varint::read(input)?, varint::read(input)?);
        let token = str::from_utf8(read_bytes(input)?).map_err(|_| EnvelopeError::Text)?;
        let mut number = || varint::read(input);
        let welcome = Welcome {
            resumed,
            received,
            next,
            token,
            resume_window_s: number()?,
            window_messages: number()?,
            window_kib: number()?,
            ack: AckRules { messages: number()?, kib: number()?, delay: Duration::from_millis(number()?) },
            heartbeat_ms: number()?,
            features: number()?,
        };
        *input = &[];
        Ok(welcome)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.resumed { FLAG_RESUMED } else { 0 });
        varint::write(out, self.received);
        varint::write(out, self.next);
        write_bytes(out, self.token.as_bytes());
        let AckRules { messages, kib, delay } = self.ack;
        let delay_ms = delay.as_millis() as u64;
        for number in [
            self.resume_window_s,
            self.window_messages,
            self.window_kib,
            messages,
            kib,
            delay_ms,
            self.heartbeat_ms,
            self.features,
        ] {
            varint::write(out, number);
        }
    }
}

impl ResumeFail {
    pub(super) fn read(input: &mut &[u8]) -> Result<ResumeFail, EnvelopeError> {
        let code = ResumeFailCode::from_number(varint::read(input)?);
        let counters = match read_byte(input)? & FLAG_COUNTERS {
            0 => None,
            _ => Some((varint::read(input)?, varint::read(input)?)),
        };
        // As with WELCOME: what a newer flag stands for follows.
        *input = &[];
        Ok(ResumeFail { code, counters })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        varint::write(out, self.code.number());
        match self.counters {
            None => out.push(0),
            Some((received, acked)) => {
                out.push(FLAG_COUNTERS);
                varint::write(out, received);
                varint::write(out, acked);
            }
        }
    }
}
