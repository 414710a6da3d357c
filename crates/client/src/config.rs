//! How a client behaves.

use std::time::Duration;

use pulsegate_core::v1::Window;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The app's subprotocols, the most wanted first; empty if it has none.
    pub subprotocols: Vec<String>,
    /// What may wait for its ACK. It bounds the replay buffer.
    pub window: Window,
    /// What may have come and not been taken. Beyond it the machine wants no more input; it must be larger than the
    /// gateway's window, or its probes would stay unread behind its messages.
    pub inbox: Window,
    /// A message without an ACK for so long is asked about.
    pub confirm_within: Duration,
    /// Limit for the gateway's first frame.
    pub welcome_within: Duration,
    /// Limit for the closing handshake (RFC 6455 section 7).
    pub close_within: Duration,
    /// The first wait before coming back is between nothing and this; each further one up to twice the one before.
    pub backoff_min: Duration,
    /// The longest wait before coming back.
    pub backoff_max: Duration,
    /// A message counts as handled when its handler says so, not when it is taken.
    pub manual_ack: bool,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            subprotocols: Vec::new(),
            window: Window { messages: 1024, bytes: 256 * 1024 },
            inbox: Window { messages: 4096, bytes: 1024 * 1024 },
            confirm_within: Duration::from_secs(1),
            welcome_within: Duration::from_secs(10),
            close_within: Duration::from_secs(5),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(20),
            manual_ack: false,
        }
    }
}
