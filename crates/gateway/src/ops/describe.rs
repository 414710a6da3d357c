//! What each metric means, as `# HELP` says it.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Describes every metric; runs with the recorder in scope.
pub(super) fn describe_all() {
    describe_gauge!("pulsegate_build_info", "Version of the running gateway; always 1.");
    describe_sessions();
    describe_handshakes();
    describe_liveness();
    describe_traffic();
    super::delivery::describe();
    super::v1::describe();
}

fn describe_sessions() {
    describe_gauge!("pulsegate_sessions", "Sessions at this moment, by state.");
    describe_counter!("pulsegate_sessions_opened_total", "Sessions that began, by how the client speaks.");
    describe_counter!("pulsegate_sessions_ended_total", "Sessions that ended, by reason.");
    describe_histogram!("pulsegate_session_duration_seconds", "How long sessions lasted.");
    describe_gauge!("pulsegate_draining", "1 while the gateway shuts down.");
}

fn describe_handshakes() {
    describe_gauge!(
        "pulsegate_connections",
        "TCP connections to the data port at this moment, sessions included."
    );
    describe_counter!("pulsegate_connections_accepted_total", "TCP connections accepted on the data port.");
    describe_counter!(
        "pulsegate_accept_failures_total",
        "Accepts on the data port that failed, as when no file descriptors are left."
    );
    describe_gauge!("pulsegate_accept_paused", "1 while the data port takes no connections because of that.");
    describe_counter!(
        "pulsegate_handshakes_rejected_total",
        "Requests refused before a session began, by reason."
    );
    describe_histogram!(
        "pulsegate_handshake_duration_seconds",
        "From a client's upgrade request read to its 101, the app's handshake included."
    );
    describe_gauge!(
        "pulsegate_upstream_up",
        "1 if the app took a connection when it was last tried, NaN before the first try."
    );
    describe_counter!(
        "pulsegate_upstream_connects_total",
        "TCP connections made to the app, for sessions and for plain HTTP."
    );
    describe_counter!(
        "pulsegate_upstream_connect_failures_total",
        "Connections or handshakes to the app that failed, by reason."
    );
    describe_histogram!("pulsegate_upstream_connect_duration_seconds", "Time to connect to the app.");
}

fn describe_liveness() {
    describe_counter!(
        "pulsegate_probes_sent_total",
        "Pings sent to ask whether a silent peer is there, by leg."
    );
    describe_counter!(
        "pulsegate_pongs_received_total",
        "Pongs that answered one of those or of pulsegate_barriers_sent_total, by leg."
    );
    describe_counter!(
        "pulsegate_pongs_late_total",
        "Pongs that came later than RFC 6298 expects of this peer, by leg."
    );
    describe_histogram!(
        "pulsegate_round_trip_seconds",
        "Ping to pong, by leg; unanswered pings are not in here, see pulsegate_suspects_total."
    );
    describe_counter!("pulsegate_suspects_total", "Peers that left a probe unanswered for too long, by leg.");
    describe_counter!("pulsegate_suspects_recovered_total", "Suspects that were heard again, by leg.");
    describe_counter!("pulsegate_dead_peers_total", "Peers declared dead, by leg and cause.");
    describe_histogram!(
        "pulsegate_dead_peer_detection_seconds",
        "From the last byte of a peer to the verdict, by leg and cause."
    );
    describe_counter!(
        "pulsegate_verdicts_withheld_total",
        "Verdicts put off because the fault may be the gateway's own, by leg and doubt."
    );
    describe_counter!(
        "pulsegate_verdicts_withheld_resolved_total",
        "Withheld verdicts by what became of the peer: spared (the fault was here, or passing) or dead; in neither if the session ended for another reason."
    );
    describe_counter!(
        "pulsegate_false_evictions_total",
        "Peers declared dead of whom bytes came within verdict_after all the same (one that woke up too late counts), or who took bytes again, by leg and cause."
    );
    describe_histogram!("pulsegate_timer_lag_seconds", "How late the gateway's own timers fire.");
}

fn describe_traffic() {
    describe_counter!("pulsegate_messages_total", "Whole WebSocket messages passed on, by direction.");
    describe_counter!("pulsegate_message_bytes_total", "Payload bytes passed on, by direction.");
    describe_counter!(
        "pulsegate_backpressure_pauses_total",
        "Times that reading from a peer paused because the other side was full, by the leg that paused."
    );
    describe_counter!(
        "pulsegate_write_stalls_total",
        "Times that a peer's socket took no more bytes, by leg."
    );
}
