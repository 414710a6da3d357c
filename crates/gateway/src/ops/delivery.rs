//! The series that tell whether messages arrive.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use pulsegate_core::{Level, Outcome, Sent};
use pulsegate_registry::{Counts, Unsettled};

use crate::shared::clock;

/// Messages go this way; those of clients are counted in `v1`.
const DIRECTION: &str = "to_client";

/// The label for a level that nothing is known of.
const NONE: &str = "none";

pub(crate) struct DeliveryMetrics {
    accepted: Counter,
    delivered: [Counter; Level::ALL.len()],
    unsent: Counter,
    rejected: Counter,
    /// By the level that was reached, and at last those of which nothing is known.
    maybe_sent: [Counter; Level::ALL.len() + 1],
    seconds: [Histogram; Level::ALL.len()],
    unacked: UnackedGauges,
    pub(crate) barriers_sent: Counter,
}

impl DeliveryMetrics {
    /// Makes the handles; runs with the recorder in scope.
    pub(super) fn resolve() -> DeliveryMetrics {
        let settled = |outcome: &'static str, level: &'static str| {
            counter!(
                "pulsegate_deliveries_settled_total",
                "direction" => DIRECTION, "outcome" => outcome, "level" => level
            )
        };
        let [kernel, received, handled] = Level::ALL.map(Level::as_str);
        DeliveryMetrics {
            accepted: counter!("pulsegate_deliveries_accepted_total", "direction" => DIRECTION),
            delivered: Level::ALL.map(|level| settled("delivered", level.as_str())),
            unsent: settled("expired_unsent", NONE),
            rejected: settled("rejected", handled),
            maybe_sent: [kernel, received, handled, NONE].map(|level| settled("expired_maybe_sent", level)),
            seconds: Level::ALL.map(|level| {
                histogram!("pulsegate_delivery_seconds", "direction" => DIRECTION, "level" => level.as_str())
            }),
            unacked: UnackedGauges::resolve(DIRECTION),
            barriers_sent: counter!("pulsegate_barriers_sent_total", "leg" => "client"),
        }
    }

    /// Counts messages whose way is followed from now on.
    pub(crate) fn accepted(&self, messages: u64) {
        self.accepted.increment(messages);
    }

    /// Counts messages of the app that came as far as they are followed.
    pub(crate) fn confirmed(&self, level: Level, messages: u64) {
        self.delivered[level as usize].increment(messages);
    }

    /// Counts messages of the app whose session ended before.
    pub(crate) fn lost(&self, messages: u64) {
        self.maybe_sent[Level::ALL.len()].increment(messages);
    }

    /// Counts messages of the app that never left.
    pub(crate) fn unsent(&self, messages: u64) {
        self.unsent.increment(messages);
    }

    /// Counts messages of the app that the client refused.
    pub(crate) fn rejected(&self, messages: u64) {
        self.rejected.increment(messages);
    }

    /// Counts a message that somebody waited for, and how long that took if it was delivered.
    pub(crate) fn settled(&self, outcome: Outcome, elapsed: Duration) {
        match outcome {
            Outcome::Delivered(level) => {
                self.confirmed(level, 1);
                self.seconds[level as usize].record(elapsed);
            }
            Outcome::Rejected => self.rejected.increment(1),
            Outcome::Expired { sent: Sent::No, .. } => self.unsent.increment(1),
            Outcome::Expired { sent: Sent::Maybe, reached } => {
                self.maybe_sent[reached.map_or(Level::ALL.len(), |level| level as usize)].increment(1);
            }
        }
    }

    /// Sets the gauges, which are sums over all sessions.
    pub(super) fn look(&self, counts: &Counts) {
        self.unacked.set(counts.to_client);
    }
}

/// What is without an end, in one direction.
pub(super) struct UnackedGauges {
    messages: Gauge,
    bytes: Gauge,
    oldest: Gauge,
}

impl UnackedGauges {
    pub(super) fn resolve(direction: &'static str) -> UnackedGauges {
        UnackedGauges {
            messages: gauge!("pulsegate_unacked_messages", "direction" => direction),
            bytes: gauge!("pulsegate_unacked_bytes", "direction" => direction),
            oldest: gauge!("pulsegate_oldest_unacked_timestamp_seconds", "direction" => direction),
        }
    }

    pub(super) fn set(&self, open: Unsettled) {
        self.messages.set(open.messages as f64);
        self.bytes.set(open.bytes as f64);
        let at = open.since.and_then(|since| {
            SystemTime::now()
                .checked_sub(clock().saturating_duration_since(since))?
                .duration_since(UNIX_EPOCH)
                .ok()
        });
        // Not 0: whoever takes it from the time of day must not get half a century.
        self.oldest.set(at.map_or(f64::NAN, |at| at.as_secs_f64()));
    }
}

/// Describes them; runs with the recorder in scope.
pub(super) fn describe() {
    describe_counter!(
        "pulsegate_deliveries_accepted_total",
        "Messages whose way is followed: those of the app (delivery.confirm), and those sent over the control API."
    );
    describe_counter!(
        "pulsegate_deliveries_settled_total",
        "Messages with their end: delivered, rejected (by the client), expired_unsent (they never left) or expired_maybe_sent, and how far they are known to have come. Accepted less settled is in flight."
    );
    describe_histogram!(
        "pulsegate_delivery_seconds",
        "From a message accepted over the control API until it was delivered, by level."
    );
    describe_gauge!(
        "pulsegate_unacked_messages",
        "Messages that are followed and have no end yet; to_app: those of pulsegate.v1 clients."
    );
    describe_gauge!("pulsegate_unacked_bytes", "Their payload bytes.");
    describe_gauge!(
        "pulsegate_oldest_unacked_timestamp_seconds",
        "When the oldest of them was passed on (to_app: came), in Unix time; NaN while there is none."
    );
    describe_counter!(
        "pulsegate_barriers_sent_total",
        "Pings sent behind messages, to learn from the pong that they were read."
    );
}
