//! What becomes of a message: how far it is known to have come, and how it ends.

use std::fmt;

/// How far a message is known to have come. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The peer's kernel has the bytes. Behind a proxy that is the proxy's kernel.
    Kernel,
    /// The peer's WebSocket stack has read past the message: it answered a ping that came behind it (RFC 6455
    /// section 5.5.3). Its code may not have seen the message yet.
    Received,
    /// The peer's code took it.
    Handled,
}

/// Whether a message that was not confirmed may have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sent {
    /// It never came, and never will: it did not leave, or the other side has said so.
    No,
    /// It was on its way when the peer was lost, or the peer does not confirm.
    Maybe,
}

/// How a message ended: exactly one for each that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It came as far as was asked for, or further.
    Delivered(Level),
    /// The peer refused it.
    Rejected,
    /// Its time was over, or the peer was lost, before it was confirmed as far as was asked for.
    Expired {
        /// Whether it may have arrived.
        sent: Sent,
        /// As far as it is known to have come.
        reached: Option<Level>,
    },
}

impl Level {
    /// All, from the weakest on.
    pub const ALL: [Level; 3] = [Level::Kernel, Level::Received, Level::Handled];

    /// Returns the word used in headers, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Kernel => "kernel",
            Level::Received => "received",
            Level::Handled => "handled",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Outcome {
    /// Returns the word used in answers, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Delivered(_) => "delivered",
            Outcome::Rejected => "rejected",
            Outcome::Expired { .. } => "expired",
        }
    }

    /// Returns whether the message certainly never came.
    pub fn is_unsent(self) -> bool {
        matches!(self, Outcome::Expired { sent: Sent::No, .. })
    }

    /// Returns how far the message is known to have come.
    pub fn level(self) -> Option<Level> {
        match self {
            Outcome::Delivered(level) => Some(level),
            // It came to the peer's code, which said so.
            Outcome::Rejected => Some(Level::Handled),
            Outcome::Expired { reached, .. } => reached,
        }
    }
}
