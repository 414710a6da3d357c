//! The metrics: names, help, buckets, and a handle to each series, resolved once.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use pulsegate_core::{Cause, EndReason, Leg};
use pulsegate_heartbeat::{Doubt, Doubts};
use pulsegate_registry::{Counts, Mode, SessionState};

use super::delivery::DeliveryMetrics;
use super::v1::V1Metrics;
use crate::front::{DialFailure, Rejection};

/// From half a millisecond to a minute: round trips, handshakes, and detection times with the bounds of the profiles
/// (3, 10 and 40 s) and of a frozen app (30 s).
const SECONDS_SHORT: [f64; 19] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0,
    40.0, 60.0,
];

/// Histograms with those buckets, without prefix and unit.
const HISTOGRAMS_SHORT: [&str; 8] = [
    "handshake_duration",
    "round_trip",
    "dead_peer_detection",
    "timer_lag",
    "upstream_connect_duration",
    "delivery",
    "resume_outage",
    "app_resume_outage",
];

/// From a second to a week: how long sessions last.
const SECONDS_LONG: [f64; 11] =
    [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];

/// Every series that the gateway writes.
///
/// The recorder is its own, not the process' global one, so that several gateways can run side by side.
pub(crate) struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    process: metrics_process::Collector,

    sessions: [Gauge; SessionState::ALL.len()],
    sessions_opened: [Counter; Mode::ALL.len()],
    sessions_ended: [Counter; EndReason::ALL.len()],
    session_duration: Histogram,

    connections: Gauge,
    connections_accepted: Counter,
    accept_failures: Counter,
    accept_paused: Gauge,
    handshakes_rejected: [Counter; Rejection::ALL.len()],
    handshake_duration: Histogram,

    legs: [LegMetrics; 2],
    timer_lag: Histogram,
    pub(crate) delivery: DeliveryMetrics,
    pub(crate) v1: V1Metrics,

    upstream_up: Gauge,
    upstream_connects: Counter,
    upstream_connect_failures: [Counter; DialFailure::ALL.len()],
    upstream_connect_duration: Histogram,

    draining: Gauge,
}

/// The series of one leg.
pub(crate) struct LegMetrics {
    pub(crate) probes_sent: Counter,
    pub(crate) pongs_received: Counter,
    pub(crate) pongs_late: Counter,
    pub(crate) round_trip: Histogram,
    pub(crate) suspects: Counter,
    pub(crate) suspects_recovered: Counter,
    dead_peers: [Counter; Cause::ALL.len()],
    dead_peer_detection: [Histogram; Cause::ALL.len()],
    false_evictions: [Counter; Cause::ALL.len()],
    verdicts_withheld: [Counter; Doubt::ALL.len()],
    withheld_spared: [Counter; Doubt::ALL.len()],
    withheld_dead: [Counter; Doubt::ALL.len()],
    pub(crate) messages: Counter,
    pub(crate) message_bytes: Counter,
    pub(crate) backpressure_pauses: Counter,
    pub(crate) write_stalls: Counter,
}

impl Metrics {
    /// Registers every series, so that all of them are there, at 0, from the first scrape on.
    pub(crate) fn new() -> Metrics {
        let recorder = Arc::new(recorder());
        with_local_recorder(&*recorder, || {
            super::describe::describe_all();
            gauge!("pulsegate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            let process = metrics_process::Collector::default();
            process.describe();
            let metrics = Metrics::resolve(Arc::clone(&recorder), process);
            // Nobody knows yet, and a 0 would raise an alarm about an app that nobody has asked.
            metrics.upstream_up.set(f64::NAN);
            metrics
        })
    }

    /// Makes the handles; runs with the recorder in scope.
    fn resolve(recorder: Arc<PrometheusRecorder>, process: metrics_process::Collector) -> Metrics {
        Metrics {
            handle: recorder.handle(),
            recorder,
            process,
            sessions: SessionState::ALL.map(|state| gauge!("pulsegate_sessions", "state" => state.as_str())),
            sessions_opened: Mode::ALL
                .map(|mode| counter!("pulsegate_sessions_opened_total", "mode" => mode.as_str())),
            sessions_ended: EndReason::ALL
                .map(|reason| counter!("pulsegate_sessions_ended_total", "reason" => reason.as_str())),
            session_duration: histogram!("pulsegate_session_duration_seconds"),
            connections: gauge!("pulsegate_connections"),
            connections_accepted: counter!("pulsegate_connections_accepted_total"),
            accept_failures: counter!("pulsegate_accept_failures_total"),
            accept_paused: gauge!("pulsegate_accept_paused"),
            handshakes_rejected: Rejection::ALL
                .map(|reason| counter!("pulsegate_handshakes_rejected_total", "reason" => reason.as_str())),
            handshake_duration: histogram!("pulsegate_handshake_duration_seconds"),
            legs: Leg::BOTH.map(LegMetrics::resolve),
            timer_lag: histogram!("pulsegate_timer_lag_seconds"),
            delivery: DeliveryMetrics::resolve(),
            v1: V1Metrics::resolve(),
            upstream_up: gauge!("pulsegate_upstream_up"),
            upstream_connects: counter!("pulsegate_upstream_connects_total"),
            upstream_connect_failures: DialFailure::ALL.map(
                |reason| counter!("pulsegate_upstream_connect_failures_total", "reason" => reason.as_str()),
            ),
            upstream_connect_duration: histogram!("pulsegate_upstream_connect_duration_seconds"),
            draining: gauge!("pulsegate_draining"),
        }
    }

    /// Renders everything in the text format 0.0.4, `process_*` and what the registry counts included.
    pub(crate) fn render(&self, counts: &Counts) -> String {
        self.sessions[0].set(counts.live as f64);
        self.sessions[1].set(counts.suspect as f64);
        self.sessions[2].set(counts.detached as f64);
        self.delivery.look(counts);
        self.v1.look(counts);
        with_local_recorder(&*self.recorder, || self.process.collect());
        self.handle.render()
    }

    /// Moves samples into their buckets; they pile up if this is not called every few seconds.
    pub(crate) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Counts a session that began.
    pub(crate) fn session_opened(&self, mode: Mode) {
        self.sessions_opened[mode as usize].increment(1);
    }

    /// Counts a session that ended.
    pub(crate) fn session_ended(&self, reason: EndReason, lasted: Duration) {
        let place = EndReason::ALL.iter().position(|&known| known == reason).expect("ALL lists every reason");
        self.sessions_ended[place].increment(1);
        self.session_duration.record(lasted);
    }

    /// Counts a TCP connection to the data port.
    pub(crate) fn connection_opened(&self) {
        self.connections_accepted.increment(1);
        self.connections.increment(1.0);
    }

    /// Takes a TCP connection to the data port off the gauge.
    pub(crate) fn connection_closed(&self) {
        self.connections.decrement(1.0);
    }

    /// Counts a failing accept, as when no descriptors are left; the accept loop pauses.
    pub(crate) fn accept_failed(&self) {
        self.accept_failures.increment(1);
        self.accept_paused.set(1.0);
    }

    /// Says that the accept loop works again.
    pub(crate) fn accept_works(&self) {
        self.accept_paused.set(0.0);
    }

    /// Counts a request that was refused.
    pub(crate) fn handshake_rejected(&self, reason: Rejection) {
        let place = Rejection::ALL.iter().position(|&known| known == reason);
        self.handshakes_rejected[place.expect("ALL lists every reason")].increment(1);
    }

    /// Records a handshake from the head read to the client's 101.
    pub(crate) fn handshake_done(&self, elapsed: Duration) {
        self.handshake_duration.record(elapsed);
    }

    /// Records a connection to the app.
    pub(crate) fn upstream_connected(&self, elapsed: Duration) {
        self.upstream_connects.increment(1);
        self.upstream_connect_duration.record(elapsed);
    }

    /// Counts a connection to the app that failed.
    pub(crate) fn upstream_connect_failed(&self, reason: DialFailure) {
        let place = DialFailure::ALL.iter().position(|&known| known == reason);
        self.upstream_connect_failures[place.expect("ALL lists every reason")].increment(1);
    }

    /// Says whether the app took a connection when it was last tried.
    pub(crate) fn upstream_up(&self, up: bool) {
        self.upstream_up.set(if up { 1.0 } else { 0.0 });
    }

    /// Says whether the gateway is shutting down.
    pub(crate) fn draining(&self, draining: bool) {
        self.draining.set(if draining { 1.0 } else { 0.0 });
    }

    /// Records how late a timer of ours fired.
    pub(crate) fn timer_lag(&self, lag: Duration) {
        self.timer_lag.record(lag);
    }

    /// Returns the series of one leg.
    pub(crate) fn leg(&self, leg: Leg) -> &LegMetrics {
        &self.legs[leg.index()]
    }
}

impl LegMetrics {
    fn resolve(leg: Leg) -> LegMetrics {
        let direction = match leg {
            Leg::Client => "to_app",
            Leg::App => "to_client",
        };
        let leg = leg.as_str();
        LegMetrics {
            probes_sent: counter!("pulsegate_probes_sent_total", "leg" => leg),
            pongs_received: counter!("pulsegate_pongs_received_total", "leg" => leg),
            pongs_late: counter!("pulsegate_pongs_late_total", "leg" => leg),
            round_trip: histogram!("pulsegate_round_trip_seconds", "leg" => leg),
            suspects: counter!("pulsegate_suspects_total", "leg" => leg),
            suspects_recovered: counter!("pulsegate_suspects_recovered_total", "leg" => leg),
            dead_peers: Cause::ALL
                .map(|cause| counter!("pulsegate_dead_peers_total", "leg" => leg, "cause" => cause.as_str())),
            dead_peer_detection: Cause::ALL.map(
                |cause| histogram!("pulsegate_dead_peer_detection_seconds", "leg" => leg, "cause" => cause.as_str()),
            ),
            false_evictions: Cause::ALL
                .map(|cause| counter!("pulsegate_false_evictions_total", "leg" => leg, "cause" => cause.as_str())),
            verdicts_withheld: Doubt::ALL
                .map(|doubt| counter!("pulsegate_verdicts_withheld_total", "leg" => leg, "doubt" => doubt.as_str())),
            withheld_spared: Doubt::ALL.map(|doubt| withheld_resolved(leg, doubt, "spared")),
            withheld_dead: Doubt::ALL.map(|doubt| withheld_resolved(leg, doubt, "dead")),
            messages: counter!("pulsegate_messages_total", "direction" => direction),
            message_bytes: counter!("pulsegate_message_bytes_total", "direction" => direction),
            backpressure_pauses: counter!("pulsegate_backpressure_pauses_total", "leg" => leg),
            write_stalls: counter!("pulsegate_write_stalls_total", "leg" => leg),
        }
    }

    /// Counts a verdict, and how long the silence had lasted.
    pub(crate) fn dead_peer(&self, cause: Cause, silent_for: Duration, doubts: Doubts) {
        let place = place_of(cause);
        self.dead_peers[place].increment(1);
        self.dead_peer_detection[place].record(silent_for);
        for doubt in Doubt::ALL {
            self.withheld_dead[doubt as usize].increment(u64::from(doubts.of(doubt)));
        }
    }

    /// Counts a verdict after which the peer was heard all the same.
    pub(crate) fn false_eviction(&self, cause: Cause) {
        self.false_evictions[place_of(cause)].increment(1);
    }

    /// Counts a verdict that was put off.
    pub(crate) fn verdict_withheld(&self, doubt: Doubt) {
        self.verdicts_withheld[doubt as usize].increment(1);
    }

    /// Counts withheld verdicts that would have been wrong.
    pub(crate) fn verdict_spared(&self, doubts: Doubts) {
        for doubt in Doubt::ALL {
            self.withheld_spared[doubt as usize].increment(u64::from(doubts.of(doubt)));
        }
    }
}

fn place_of(cause: Cause) -> usize {
    Cause::ALL.iter().position(|&known| known == cause).expect("ALL lists every cause")
}

fn withheld_resolved(leg: &'static str, doubt: Doubt, outcome: &'static str) -> Counter {
    counter!(
        "pulsegate_verdicts_withheld_resolved_total",
        "leg" => leg, "doubt" => doubt.as_str(), "outcome" => outcome
    )
}

fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for name in HISTOGRAMS_SHORT {
        let matcher = Matcher::Full(format!("pulsegate_{name}_seconds"));
        builder = builder.set_buckets_for_metric(matcher, &SECONDS_SHORT).expect("there are buckets");
    }
    let matcher = Matcher::Full("pulsegate_session_duration_seconds".to_owned());
    builder.set_buckets_for_metric(matcher, &SECONDS_LONG).expect("there are buckets").build_recorder()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_counts() {
        let metrics = Metrics::new();
        let text = metrics.render(&Counts { live: 2, suspect: 1, ..Counts::default() });
        assert!(text.contains("pulsegate_sessions{state=\"live\"} 2"), "{text}");
        assert!(text.contains("pulsegate_sessions_ended_total{reason=\"frozen\"} 0"));
        assert!(text.contains("pulsegate_dead_peers_total{leg=\"app\",cause=\"unreachable\"} 0"));
        assert!(text.contains("process_open_fds"));
        assert!(text.contains("\npulsegate_upstream_up NaN\n"), "nobody has asked the app");
        metrics.upstream_up(false);
        metrics.leg(Leg::App).dead_peer(Cause::Unreachable, Duration::from_secs(9), Doubts::default());
        metrics.session_ended(EndReason::Frozen, Duration::from_secs(100));
        let text = metrics.render(&Counts::default());
        assert!(text.contains("pulsegate_sessions_ended_total{reason=\"frozen\"} 1"));
        assert!(text.contains("pulsegate_dead_peers_total{leg=\"app\",cause=\"unreachable\"} 1"));
        assert!(text.contains("\npulsegate_upstream_up 0\n"));
        let bucket =
            "pulsegate_dead_peer_detection_seconds_bucket{leg=\"app\",cause=\"unreachable\",le=\"10\"} 1";
        assert!(text.contains(bucket), "{text}");
    }

    #[test]
    fn two_gateways_in_one_process_do_not_share_series() {
        let (one, two) = (Metrics::new(), Metrics::new());
        one.session_opened(Mode::Plain);
        assert!(one.render(&Counts::default()).contains("pulsegate_sessions_opened_total{mode=\"plain\"} 1"));
        assert!(two.render(&Counts::default()).contains("pulsegate_sessions_opened_total{mode=\"plain\"} 0"));
    }
}
