//! How much is measured.

use std::time::Duration;

/// Everything that makes a run long or short.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Sessions of the echo and latency cells.
    pub(crate) connections: usize,
    /// Bytes of a message and messages in flight on each connection.
    pub(crate) echoes: Vec<(usize, usize)>,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) latency_bytes: usize,
    pub(crate) latency_per_second: u32,
    pub(crate) latency_seconds: f64,
    pub(crate) churn_at_once: usize,
    /// Idle sessions whose memory is measured.
    pub(crate) idle_sessions: usize,
    /// Probes to count, at least.
    pub(crate) probes: usize,
    /// From the last byte to a look at the memory.
    pub(crate) settle: Duration,
    pub(crate) growth: Vec<usize>,
    pub(crate) growth_seconds: f64,
}

const KIB: usize = 1024;

impl Plan {
    pub(crate) fn full(rounds: usize) -> Plan {
        let echoes = [32, KIB, 64 * KIB].into_iter().flat_map(|bytes| [(bytes, 1), (bytes, 16)]).collect();
        Plan {
            rounds,
            connections: 64,
            echoes,
            warm_up: Duration::from_millis(500),
            window: Duration::from_secs(2),
            latency_bytes: 32,
            latency_per_second: 4000,
            latency_seconds: 5.0,
            churn_at_once: 32,
            idle_sessions: 5000,
            probes: 20_000,
            settle: Duration::from_secs(4),
            growth: vec![1000, 3000, 6000, 9000],
            growth_seconds: 4.0,
        }
    }

    /// Whether the tool still works, not how fast anything is.
    pub(crate) fn brief() -> Plan {
        Plan {
            warm_up: Duration::from_millis(50),
            window: Duration::from_millis(200),
            latency_seconds: 0.5,
            idle_sessions: 200,
            probes: 200,
            settle: Duration::from_millis(200),
            growth: vec![50, 100],
            growth_seconds: 0.5,
            ..Plan::full(1)
        }
    }
}

/// Bytes as people say them.
pub(crate) fn size(bytes: usize) -> String {
    if bytes.is_multiple_of(KIB) { format!("{} KiB", bytes / KIB) } else { format!("{bytes} B") }
}
