//! Who, and why: the legs of a session, causes of death, reasons of an end.

use std::fmt;

/// One of the two connections of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    /// The connection that a client opened to the gateway.
    Client,
    /// The connection that the gateway opened to the app.
    App,
}

impl Leg {
    /// Both, in the order in which arrays per leg are laid out.
    pub const BOTH: [Leg; 2] = [Leg::Client, Leg::App];

    /// Returns the opposite leg.
    pub fn other(self) -> Leg {
        match self {
            Leg::Client => Leg::App,
            Leg::App => Leg::Client,
        }
    }

    /// Returns 0 for the client and 1 for the app.
    pub fn index(self) -> usize {
        match self {
            Leg::Client => 0,
            Leg::App => 1,
        }
    }

    /// Returns the label value used in metrics, events and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Leg::Client => "client",
            Leg::App => "app",
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a peer was declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nothing came back, not even from the peer's kernel: the path or the host is gone.
    Unreachable,
    /// The peer's kernel acknowledges, the process behind it stays silent.
    Frozen,
    /// Bytes wait for the peer, and it takes none.
    WriteStalled,
}

impl Cause {
    /// All causes, for resolving metrics once.
    pub const ALL: [Cause; 3] = [Cause::Unreachable, Cause::Frozen, Cause::WriteStalled];

    /// Returns the label value used in metrics, events and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Unreachable => "unreachable",
            Cause::Frozen => "frozen",
            Cause::WriteStalled => "write_stalled",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// A peer was declared dead: nothing came back at all.
    Unreachable,
    /// A peer was declared dead: its kernel lives, its process does not answer.
    Frozen,
    /// A peer was declared dead: it takes no bytes.
    WriteStalled,
    /// A peer cut its connection without a closing handshake (FIN or RST).
    Reset,
    /// A closing handshake (RFC 6455 section 7) that one of the peers began.
    Closed,
    /// A peer broke RFC 6455.
    ProtocolError,
    /// Ended over the control API.
    Kicked,
    /// Ended because the gateway shuts down.
    Drained,
    /// A client did not come back to its session in time.
    Expired,
    /// A peer ran into a limit: frame or message size, fragments, control frames, slow frame.
    Limit,
}

impl EndReason {
    /// All reasons, for resolving metrics once.
    pub const ALL: [EndReason; 10] = [
        EndReason::Unreachable,
        EndReason::Frozen,
        EndReason::WriteStalled,
        EndReason::Reset,
        EndReason::Closed,
        EndReason::ProtocolError,
        EndReason::Kicked,
        EndReason::Drained,
        EndReason::Expired,
        EndReason::Limit,
    ];

    /// Returns the label value used in metrics, events and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Unreachable => "unreachable",
            EndReason::Frozen => "frozen",
            EndReason::WriteStalled => "write_stalled",
            EndReason::Reset => "reset",
            EndReason::Closed => "closed",
            EndReason::ProtocolError => "protocol_error",
            EndReason::Kicked => "kicked",
            EndReason::Drained => "drained",
            EndReason::Expired => "expired",
            EndReason::Limit => "limit",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Cause> for EndReason {
    fn from(cause: Cause) -> EndReason {
        match cause {
            Cause::Unreachable => EndReason::Unreachable,
            Cause::Frozen => EndReason::Frozen,
            Cause::WriteStalled => EndReason::WriteStalled,
        }
    }
}
