//! Bugs to plant between the machines; the oracle must catch each.

use clap::ValueEnum;

use super::Invariant;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum V1Bug {
    /// Each 50th message to the client is lost on a line that works.
    LostMessage,
    /// Each 50th message to the client comes twice.
    DoubledMessage,
    /// Each 50th message to the app changes its last byte.
    ChangedByte,
    /// A message of the client is acknowledged and never passed to the app.
    EarlyAck,
    /// What still comes on a connection that was replaced is taken for the session.
    OldConnection,
    /// The token of the connection before is not taken any more.
    ForgottenToken,
    /// Refusals never leave.
    LostNack,
    /// ACKs of the client never arrive.
    LostAck,
    /// An outcome is told twice.
    DoubledEnd,
    /// An ACK says one more than the client has.
    AckBeyond,
    /// What the client has is replayed from its last message, and not from the one behind.
    ReplayFromReceived,
    /// A message that was told as expired and not sent goes out all the same.
    SentExpired,
    /// Each barrier is written twice.
    DoubledBarrier,
    /// What is written to the client counts as heard from it.
    OutboundIsLife,
    /// Pongs of the client are not heard.
    DeafGateway,
    /// A pong counts as a word of the page.
    PongIsPage,
    /// Deadlines are not looked at.
    NoTimeouts,
    /// The window is twice as large as was said.
    WideWindow,
    /// The last word tells one message too many.
    WrongLastWord,
    /// Messages without bytes are dropped.
    LostEmpty,
    /// Each fifth ACK of the gateway says one less than the one before could.
    FallingAck,
    /// Each 20th time that messages to the app are told as confirmed, it is not told.
    LostCount,
    /// The first message that an app which is back should get again is left out.
    LostReplay,
    /// An app that is back is not told that it gets messages again.
    UntoldReplay,
    /// The answer to a barrier is taken for there when it is sent.
    PongAhead,
    /// What is said of a client's message before it is not heard.
    LostMeta,
    /// The client hears neither pings nor PROBEs.
    DeafClient,
    /// The client does not look at its deadlines.
    PatientClient,
}

impl V1Bug {
    /// Returns all of them.
    pub fn all() -> &'static [V1Bug] {
        V1Bug::value_variants()
    }

    /// Returns which invariants the oracle may find broken first.
    pub fn breaks(self) -> &'static [Invariant] {
        use Invariant::*;
        match self {
            // One of the control API is missed when it is said to be handled.
            V1Bug::LostMessage => &[Order, TrueEnd],
            V1Bug::DoubledMessage => &[Order],
            V1Bug::ChangedByte => &[Bytes, Order],
            V1Bug::EarlyAck => &[TrueEnd, Order, Counts, Progress],
            V1Bug::OldConnection => &[Order, Counts, Bytes, Progress, Protocol, TrueEnd, Token],
            V1Bug::ForgottenToken => &[Token],
            V1Bug::LostNack => &[TrueEnd],
            // A client whose answers to PROBE are lost is a page that hangs.
            V1Bug::LostAck => &[Progress, Liveness],
            V1Bug::DoubledEnd => &[OneEnd],
            V1Bug::AckBeyond => &[Protocol, Counts, TrueEnd],
            V1Bug::ReplayFromReceived => &[Protocol, Token],
            V1Bug::SentExpired => &[TrueEnd, Order],
            V1Bug::DoubledBarrier => &[Barrier],
            V1Bug::OutboundIsLife | V1Bug::DeafGateway | V1Bug::PongIsPage => &[Liveness],
            V1Bug::NoTimeouts => &[Progress, Liveness],
            V1Bug::WideWindow => &[Counts],
            V1Bug::WrongLastWord => &[LastWord],
            V1Bug::LostEmpty => &[Order, Counts],
            V1Bug::FallingAck => &[Counts],
            V1Bug::LostCount => &[OneEnd],
            V1Bug::LostReplay => &[Order, Counts, TrueEnd, Progress],
            V1Bug::UntoldReplay => &[Order],
            V1Bug::PongAhead => &[TrueEnd],
            // Its key is gone, and its time limit.
            V1Bug::LostMeta => &[Order, TrueEnd],
            V1Bug::DeafClient | V1Bug::PatientClient => &[Liveness, Progress],
        }
    }
}
