//! The words and windows of `pulsegate.v1`, the protocol between a client and the gateway (PROTOCOL.md).
//!
//! Both sides use the same parts: an [`Envelope`] is one binary frame, a [`SendWindow`] keeps what the other side has not
//! acknowledged, a [`ReceiveWindow`] counts what came and says when to acknowledge it. An [`Offer`] and a [`Token`] are what
//! a client says in its handshake.

mod assembler;
mod close;
mod envelope;
mod offer;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod token;
mod varint;
mod welcome;

pub use assembler::{Assembler, Piece};
pub use close::{After, Code};
pub use envelope::{Ack, Envelope, EnvelopeError, KEY_BYTES_MAX, Meta, NackCode, SkipReason};
pub use offer::{Offer, OfferedResume, RESUME_PREFIX, V1};
pub use receive::{AckRules, ReceiveWindow};
pub use send::{AckError, Fate, Outgoing, PositionError, SendWindow, Transmit, Window};
pub use token::{Secret, Token};
pub use varint::COUNT_MAX;
pub use welcome::{ResumeFail, ResumeFailCode, Welcome};
