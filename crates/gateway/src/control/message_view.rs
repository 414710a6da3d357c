//! Messages as the control API shows them. The shapes are promises: `docs/openapi.json` describes them.

use std::time::Duration;

use pulsegate_core::{Level, MessageId, Outcome, Sent, SessionId};
use serde::Serialize;

use super::view::rfc3339;
use crate::messages::{Record, Status};

/// A message and how far it is.
#[derive(Serialize)]
pub(super) struct MessageView {
    id: MessageId,
    session: SessionId,
    status: &'static str,
    /// How far it is known to have come.
    level: Option<Level>,
    /// How far it has to come.
    requested: Level,
    /// Of one that expired: whether it may have arrived.
    sent: Option<Sent>,
    bytes: usize,
    attempts: u32,
    accepted_at: String,
    sent_at: Option<String>,
    settled_at: Option<String>,
    elapsed_ms: Option<f64>,
}

/// The end of a message, as an event tells it.
#[derive(Serialize)]
pub(super) struct SettledView {
    message: MessageId,
    status: &'static str,
    level: Option<Level>,
    requested: Level,
    sent: Option<Sent>,
    elapsed_ms: f64,
}

impl MessageView {
    pub(super) fn of(record: &Record) -> MessageView {
        let status = record.status();
        let ((name, level, sent), attempts, sent_at, settled) = match status {
            Status::Queued => (("queued", None, None), 0, None, None),
            Status::Sent { at, attempts } => (("sent", None, None), attempts, Some(at), None),
            Status::Settled { outcome, sent_at, attempts, at, elapsed } => {
                (parts(outcome), attempts, sent_at, Some((at, elapsed)))
            }
        };
        MessageView {
            id: record.id,
            session: record.session,
            status: name,
            level,
            requested: record.level,
            sent,
            bytes: record.bytes,
            attempts,
            accepted_at: rfc3339(record.accepted_at),
            sent_at: sent_at.map(rfc3339),
            settled_at: settled.map(|(at, _)| rfc3339(at)),
            elapsed_ms: settled.map(|(_, elapsed)| millis(elapsed)),
        }
    }
}

impl SettledView {
    pub(super) fn new(
        message: MessageId,
        requested: Level,
        outcome: Outcome,
        elapsed: Duration,
    ) -> SettledView {
        let (status, level, sent) = parts(outcome);
        SettledView { message, status, level, requested, sent, elapsed_ms: millis(elapsed) }
    }
}

fn parts(outcome: Outcome) -> (&'static str, Option<Level>, Option<Sent>) {
    let sent = match outcome {
        Outcome::Delivered(_) | Outcome::Rejected => None,
        Outcome::Expired { sent, .. } => Some(sent),
    };
    (outcome.as_str(), outcome.level(), sent)
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
