//! What comes out of the machine.

/// What the app is told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The gateway has greeted, and messages pass.
    Live {
        /// In the session that there was before.
        resumed: bool,
    },
    /// The connection is gone. The session is not: messages wait until the next one.
    Detached,
    /// The session is gone, and the next one begins anew.
    Reset {
        /// Messages that were not acknowledged in it.
        undelivered: usize,
    },
    /// A message from the app behind the gateway.
    Message {
        /// Its number in its session.
        seq: u64,
        /// It is text, and valid UTF-8.
        text: bool,
        /// What it carries.
        payload: Box<[u8]>,
    },
    /// The server does not speak `pulsegate.v1`; nothing follows.
    Unsupported,
    /// It is over for good; nothing follows.
    Closed {
        /// The app's code, or the gateway's; `None` if the end was not agreed upon.
        code: Option<u16>,
        /// The reason with it.
        reason: String,
    },
}

/// What to write to the connection, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A data frame.
    Frame(Frame),
    /// A Close frame; nothing follows.
    Close {
        /// Its code.
        code: u16,
        /// Its reason.
        reason: &'static str,
    },
}

/// A data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// It is a text frame, and its payload valid UTF-8.
    pub text: bool,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no room until something was acknowledged.
    #[error("the window is full")]
    Full,
    /// The key is empty or longer than 64 bytes.
    #[error("a key has 1 to 64 bytes")]
    Key,
    /// A text is not UTF-8.
    #[error("a text message must be UTF-8")]
    Text,
    /// The session is over.
    #[error("the client is closed")]
    Closed,
}
