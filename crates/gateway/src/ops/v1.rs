//! The series of clients that speak `pulsegate.v1`.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use pulsegate_core::Level;
use pulsegate_core::v1::ResumeFailCode;
use pulsegate_registry::Counts;

use super::delivery::UnackedGauges;

/// Why a client could not come back, as label values.
const FAILURES: [ResumeFailCode; 4] =
    [ResumeFailCode::Unknown, ResumeFailCode::Ended, ResumeFailCode::Position, ResumeFailCode::Origin];

/// What came of dialing an app again, as label values.
const REDIALS: [&str; 3] = ["connected", "failed", "refused"];

const TO_APP: &str = "to_app";

pub(crate) struct V1Metrics {
    resumes: Counter,
    resume_failures: [Counter; FAILURES.len()],
    outage: Histogram,
    parked_bytes: Gauge,
    /// To the client.
    pub(crate) retransmits: Counter,
    pub(crate) retransmits_to_app: Counter,
    app_resumes: Counter,
    app_outage: Histogram,
    redials: [Counter; REDIALS.len()],
    /// From the client.
    pub(crate) duplicates: Counter,
    accepted: Counter,
    kernel: Counter,
    received: Counter,
    lost: Counter,
    unsent: Counter,
    unacked: UnackedGauges,
    pub(crate) barriers_sent: Counter,
}

impl V1Metrics {
    /// Makes the handles; runs with the recorder in scope.
    pub(super) fn resolve() -> V1Metrics {
        let settled = |outcome: &'static str, level: &'static str| {
            counter!(
                "pulsegate_deliveries_settled_total",
                "direction" => TO_APP, "outcome" => outcome, "level" => level
            )
        };
        V1Metrics {
            resumes: counter!("pulsegate_resumes_total"),
            resume_failures: FAILURES
                .map(|reason| counter!("pulsegate_resume_failures_total", "reason" => reason.as_str())),
            outage: histogram!("pulsegate_resume_outage_seconds"),
            parked_bytes: gauge!("pulsegate_parked_bytes"),
            retransmits: counter!("pulsegate_retransmits_total", "direction" => "to_client"),
            retransmits_to_app: counter!("pulsegate_retransmits_total", "direction" => TO_APP),
            app_resumes: counter!("pulsegate_app_resumes_total"),
            app_outage: histogram!("pulsegate_app_resume_outage_seconds"),
            redials: REDIALS.map(|result| counter!("pulsegate_app_redials_total", "result" => result)),
            duplicates: counter!("pulsegate_duplicates_dropped_total", "direction" => TO_APP),
            accepted: counter!("pulsegate_deliveries_accepted_total", "direction" => TO_APP),
            kernel: settled("delivered", "kernel"),
            received: settled("delivered", "received"),
            lost: settled("expired_maybe_sent", "none"),
            unsent: settled("expired_unsent", "none"),
            unacked: UnackedGauges::resolve(TO_APP),
            barriers_sent: counter!("pulsegate_barriers_sent_total", "leg" => "app"),
        }
    }

    /// Sets the gauges, which are sums over all sessions.
    pub(super) fn look(&self, counts: &Counts) {
        self.unacked.set(counts.to_app);
    }

    /// Says how much is kept for clients that are away.
    pub(crate) fn parked(&self, bytes: usize) {
        self.parked_bytes.set(bytes as f64);
    }

    /// Counts a client that came back, and how long it had no connection.
    pub(crate) fn resumed(&self, outage: Duration) {
        self.resumes.increment(1);
        self.outage.record(outage);
    }

    /// Counts a client that could not come back.
    pub(crate) fn resume_failed(&self, code: ResumeFailCode) {
        if let Some(place) = FAILURES.iter().position(|known| *known == code) {
            self.resume_failures[place].increment(1);
        }
    }

    /// Counts messages of a client whose way to the app is followed.
    pub(crate) fn accepted(&self, messages: u64) {
        self.accepted.increment(messages);
    }

    /// Counts messages of a client that have come to the app.
    pub(crate) fn confirmed(&self, level: Level, messages: u64) {
        match level {
            Level::Kernel => self.kernel.increment(messages),
            Level::Received | Level::Handled => self.received.increment(messages),
        }
    }

    /// Counts an app that came back to a session, and how long it had no connection.
    pub(crate) fn app_resumed(&self, outage: Duration) {
        self.app_resumes.increment(1);
        self.app_outage.record(outage);
    }

    /// Counts a dial of an app that is waited for.
    pub(crate) fn redialled(&self, result: &str) {
        if let Some(place) = REDIALS.iter().position(|known| *known == result) {
            self.redials[place].increment(1);
        }
    }

    /// Counts messages of a client that no connection of the app was given.
    pub(crate) fn unsent(&self, messages: u64) {
        self.unsent.increment(messages);
    }

    /// Counts messages of a client whose app was gone before they were confirmed.
    pub(crate) fn lost(&self, messages: u64) {
        self.lost.increment(messages);
    }
}

/// Describes them; runs with the recorder in scope.
pub(super) fn describe() {
    describe_counter!("pulsegate_resumes_total", "Clients that came back to their session.");
    describe_counter!("pulsegate_resume_failures_total", "Clients that could not come back, by reason.");
    describe_histogram!(
        "pulsegate_resume_outage_seconds",
        "How long clients that came back had no connection; 0 if a new one replaced the old."
    );
    describe_counter!("pulsegate_app_resumes_total", "Apps that came back to a session (upstream.hold).");
    describe_histogram!(
        "pulsegate_app_resume_outage_seconds",
        "How long apps that came back to a session had no connection."
    );
    describe_counter!(
        "pulsegate_app_redials_total",
        "Dials of an app that sessions wait for, by result: failed ones are tried again, refused ones end the session."
    );
    describe_gauge!(
        "pulsegate_parked_bytes",
        "Payload bytes kept for sessions whose clients have no connection (v1.parked_bytes_max bounds them)."
    );
    describe_counter!("pulsegate_retransmits_total", "Messages written again on a new connection.");
    describe_counter!(
        "pulsegate_duplicates_dropped_total",
        "Messages that a client sent twice with the same key, and the app got once."
    );
}
