//! Frame heads (RFC 6455 section 5.2): reading them, checking them, writing control frames.

mod head;
mod reader;

pub(crate) use head::apply_mask;
pub use head::{Head, Opcode, write_control, write_message};
pub use reader::{Direction, FrameLimits, FrameReader, ReservedBits, Step};

use crate::close::CloseFrameError;

/// How a peer broke RFC 6455, or a limit of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit that no negotiated extension uses (section 5.2).
    ReservedBit,
    /// An opcode that means nothing (section 5.2).
    ReservedOpcode,
    /// A client's frame without a mask (section 5.1).
    MaskMissing,
    /// A server's frame with a mask (section 5.1).
    MaskUnexpected,
    /// A length in more bytes than it needs, or over 2^63 - 1 (section 5.2).
    InvalidLength,
    /// A control frame over 125 bytes (section 5.5).
    ControlTooLong,
    /// A control frame in fragments (section 5.5).
    ControlFragmented,
    /// A continuation of nothing (section 5.4).
    StrayContinuation,
    /// A new message within an unfinished one (section 5.4).
    InterruptedMessage,
    /// A Close frame whose payload is not allowed (section 5.5.1).
    InvalidClose(CloseFrameError),
    /// A text message that is not UTF-8 (section 8.1); checked only where messages are put together.
    InvalidUtf8,
    /// Over `limits.frame_bytes_max`.
    FrameTooBig,
    /// Over `limits.message_bytes_max`.
    MessageTooBig,
    /// Over `limits.fragments_max`.
    TooManyFragments,
    /// Over `limits.control_frames_rate_max`.
    ControlFlood,
    /// Slower than `limits.frame_rate_min` for longer than `limits.frame_timeout`.
    FrameTooSlow,
}

impl Violation {
    /// Returns the status code that the offender is closed with (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Violation::ReservedBit
            | Violation::ReservedOpcode
            | Violation::MaskMissing
            | Violation::MaskUnexpected
            | Violation::InvalidLength
            | Violation::ControlTooLong
            | Violation::ControlFragmented
            | Violation::StrayContinuation
            | Violation::InterruptedMessage
            | Violation::InvalidClose(_) => 1002,
            Violation::InvalidUtf8 => 1007,
            Violation::FrameTooBig | Violation::MessageTooBig | Violation::TooManyFragments => 1009,
            Violation::ControlFlood | Violation::FrameTooSlow => 1008,
        }
    }

    /// Returns whether one of our limits was hit, rather than a rule of the protocol.
    pub fn is_limit(self) -> bool {
        !matches!(self.close_code(), 1002 | 1007)
    }

    /// Returns what the Close frame, the log and the tombstone say.
    pub fn as_str(self) -> &'static str {
        match self {
            Violation::ReservedBit => "reserved bit set",
            Violation::ReservedOpcode => "reserved opcode",
            Violation::MaskMissing => "frame not masked",
            Violation::MaskUnexpected => "frame masked",
            Violation::InvalidLength => "invalid frame length",
            Violation::ControlTooLong => "control frame too long",
            Violation::ControlFragmented => "control frame fragmented",
            Violation::StrayContinuation => "continuation without a message",
            Violation::InterruptedMessage => "message within a message",
            Violation::InvalidClose(CloseFrameError::TruncatedCode) => "close code truncated",
            Violation::InvalidClose(CloseFrameError::InvalidCode(_)) => "invalid close code",
            Violation::InvalidClose(CloseFrameError::InvalidUtf8) => "close reason is not UTF-8",
            Violation::InvalidUtf8 => "text is not UTF-8",
            Violation::FrameTooBig => "frame too big",
            Violation::MessageTooBig => "message too big",
            Violation::TooManyFragments => "too many fragments",
            Violation::ControlFlood => "too many control frames",
            Violation::FrameTooSlow => "frame too slow",
        }
    }
}
