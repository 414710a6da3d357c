//! What is remembered of a session that ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulsegate_core::SessionId;

use crate::entry::SessionInfo;
use crate::session::Ending;
use crate::v1::LastWord;

/// Final counters of one leg: what was received from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegTotals {
    /// Whole messages.
    pub messages: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Smoothed round trip, if it was ever known.
    pub round_trip: Option<Duration>,
}

/// Final counters of the messages to the client: how many were passed on, and how far the first so many of them had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Passed on.
    pub sent: u64,
    /// Its kernel had them.
    pub kernel: u64,
    /// Its WebSocket stack had read them.
    pub received: u64,
}

/// A session that ended: the answer to a late question.
#[derive(Debug)]
pub struct Tombstone {
    /// The session's id.
    pub id: SessionId,
    /// What was known of it.
    pub info: Arc<SessionInfo>,
    /// Why it ended.
    pub ending: Ending,
    /// When it began, by the wall clock.
    pub opened_at: SystemTime,
    /// When it ended, by the wall clock.
    pub ended_at: SystemTime,
    /// How long it lasted, by the monotonic clock.
    pub duration: Duration,
    /// Client first, then app.
    pub legs: [LegTotals; 2],
    /// Messages to the client.
    pub delivered: Delivered,
    /// For a client that comes back too late.
    pub last: Option<Box<LastWord>>,
}
