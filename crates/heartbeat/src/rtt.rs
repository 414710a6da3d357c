//! Round-trip estimator (RFC 6298 section 2).

use std::time::Duration;

/// Assumed before the first sample (RFC 6298 section 2.1).
const TIMEOUT_UNKNOWN: Duration = Duration::from_secs(1);

/// Floor of the timeout. RFC 6298 section 2.4 takes 1 s because a retransmission costs the network;
/// a second probe costs eight bytes, and an early suspicion harms nobody.
const TIMEOUT_MIN: Duration = Duration::from_millis(200);

/// What is known of the way to the peer and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    smoothed_us: u32,
    variation_us: u32,
    known: bool,
}

impl RoundTrip {
    /// Takes a sample (RFC 6298 sections 2.2 and 2.3). Probes carry an id of their own, so a sample is never
    /// ambiguous (Karn's rule, section 3, is met by construction).
    pub fn handle_sample(&mut self, sample: Duration) {
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        if !self.known {
            *self = RoundTrip { smoothed_us: sample, variation_us: sample / 2, known: true };
            return;
        }
        // RTTVAR takes 1/4 of the deviation, SRTT 1/8 of the sample.
        let deviation = self.smoothed_us.abs_diff(sample);
        self.variation_us = self.variation_us - self.variation_us / 4 + deviation / 4;
        self.smoothed_us = self.smoothed_us - self.smoothed_us / 8 + sample / 8;
    }

    /// Returns SRTT, once there was a sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.known.then(|| Duration::from_micros(u64::from(self.smoothed_us)))
    }

    /// Returns SRTT + 4·RTTVAR within [200 ms, `timeout_max`]; 1 s before the first sample.
    pub fn timeout(&self, timeout_max: Duration) -> Duration {
        let timeout = if self.known {
            Duration::from_micros(u64::from(self.smoothed_us) + 4 * u64::from(self.variation_us))
        } else {
            TIMEOUT_UNKNOWN
        };
        timeout.max(TIMEOUT_MIN).min(timeout_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_sample_sets_both_values() {
        let mut rtt = RoundTrip::default();
        assert_eq!((rtt.smoothed(), rtt.timeout(MAX)), (None, Duration::from_secs(1)));
        rtt.handle_sample(Duration::from_millis(400));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(400)));
        assert_eq!(rtt.timeout(MAX), Duration::from_millis(1200));
    }

    #[test]
    fn a_steady_path_brings_the_timeout_down_and_jitter_brings_it_up() {
        let mut rtt = RoundTrip::default();
        for _ in 0..100 {
            rtt.handle_sample(Duration::from_millis(300));
        }
        let steady = rtt.timeout(MAX);
        assert!(steady < Duration::from_millis(320), "{steady:?}");
        for n in 0..100 {
            rtt.handle_sample(Duration::from_millis(if n % 2 == 0 { 100 } else { 500 }));
        }
        assert!(rtt.timeout(MAX) > Duration::from_millis(900), "{:?}", rtt.timeout(MAX));
    }

    #[test]
    fn the_timeout_stays_within_its_bounds() {
        let mut rtt = RoundTrip::default();
        rtt.handle_sample(Duration::ZERO);
        assert_eq!(rtt.timeout(MAX), TIMEOUT_MIN);
        assert_eq!(rtt.timeout(Duration::from_millis(50)), Duration::from_millis(50));
        for _ in 0..100 {
            rtt.handle_sample(Duration::MAX);
        }
        assert_eq!(rtt.timeout(MAX), MAX);
    }
}
