//! Phi accrual (Hayashibara, Défago, Yared and Katayama, 2004), with the details of Akka's detector.

use std::collections::VecDeque;

use crate::trace::Micros;
use crate::watch::{Act, Watch};

const MILLI: Micros = 1_000;

/// The numbers of one phi detector; times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhiSetting {
    pub(crate) interval: Micros,
    /// How many gaps between heartbeats are remembered.
    pub(crate) window: usize,
    pub(crate) deviation_min: Micros,
    /// Akka's `acceptable-heartbeat-pause`: added to the mean.
    pub(crate) pause: Micros,
    pub(crate) threshold: f64,
}

/// A detector of one session: a ping each interval, whose pongs are the heartbeats.
#[derive(Debug)]
pub(crate) struct Phi {
    setting: PhiSetting,
    /// How many deviations after the mean phi reaches the threshold.
    reach: f64,
    gaps: Gaps,
    ping_at: Micros,
    heard_at: Micros,
    evict_at: Micros,
}

impl Phi {
    /// Starts as Akka does: as if two heartbeats had come, a quarter of the interval off each way.
    pub(crate) fn new(setting: PhiSetting, ping_at: Micros, now: Micros) -> Phi {
        let mut gaps = Gaps::new(setting.window);
        gaps.push(setting.interval / MILLI * 3 / 4);
        gaps.push(setting.interval / MILLI * 5 / 4);
        let reach = reach(setting.threshold);
        let mut phi = Phi { setting, reach, gaps, ping_at, heard_at: now, evict_at: 0 };
        phi.expect_next();
        phi
    }

    /// Phi only grows with time, so the time at which it reaches the threshold is known at once.
    fn expect_next(&mut self) {
        let deviation = self.gaps.deviation().max((self.setting.deviation_min / MILLI) as f64);
        let after = ((self.gaps.mean() + self.reach * deviation) * MILLI as f64).max(0.0);
        self.evict_at = self.heard_at + self.setting.pause + after as Micros;
    }
}

impl Watch for Phi {
    fn due(&self) -> Micros {
        self.ping_at.min(self.evict_at)
    }

    fn tick(&mut self, now: Micros) -> Act {
        if now >= self.evict_at {
            return Act::Evict;
        }
        self.ping_at = now + self.setting.interval;
        Act::Probe([0; 8])
    }

    fn answer(&mut self, _payload: [u8; 8], now: Micros) {
        self.gaps.push((now - self.heard_at) / MILLI);
        self.heard_at = now;
        self.expect_next();
    }
}

/// The last gaps between heartbeats, in whole milliseconds as in Akka, so that their sums are exact.
#[derive(Debug)]
struct Gaps {
    window: usize,
    gaps: VecDeque<u64>,
    sum: u64,
    squares: u64,
}

impl Gaps {
    fn new(window: usize) -> Gaps {
        Gaps { window, gaps: VecDeque::with_capacity(window), sum: 0, squares: 0 }
    }

    fn push(&mut self, gap: u64) {
        if self.gaps.len() == self.window
            && let Some(old) = self.gaps.pop_front()
        {
            self.sum -= old;
            self.squares -= old * old;
        }
        self.gaps.push_back(gap);
        self.sum += gap;
        self.squares += gap * gap;
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.gaps.len() as f64
    }

    fn deviation(&self) -> f64 {
        let mean = self.mean();
        (self.squares as f64 / self.gaps.len() as f64 - mean * mean).max(0.0).sqrt()
    }
}

/// Returns phi at so many deviations after the mean: -log10 of the chance that a heartbeat comes later still,
/// by the logistic approximation of the normal distribution that Akka uses.
fn phi(deviations: f64) -> f64 {
    let e = (-deviations * (1.5976 + 0.070566 * deviations * deviations)).exp();
    -(e / (1.0 + e)).log10()
}

/// Returns at how many deviations after the mean phi reaches the threshold (by bisection: phi only grows).
fn reach(threshold: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 20.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if phi(middle) < threshold { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SECOND;

    const SETTING: PhiSetting =
        PhiSetting { interval: SECOND, window: 200, deviation_min: SECOND / 10, pause: 0, threshold: 8.0 };

    #[test]
    fn phi_agrees_with_the_normal_distribution() {
        // -log10 of the upper tail at 0, 1, 2 and 3 deviations: 0.5, 0.1587, 0.02275, 0.00135. The approximation is
        // within 0.00014 of the tail itself, which is a tenth of it at 3 deviations.
        for (deviations, exact) in [(0.0, 0.301), (1.0, 0.7996), (2.0, 1.643), (3.0, 2.870)] {
            let got = phi(deviations);
            assert!((got - exact).abs() < 0.05, "{deviations}: {got} for {exact}");
        }
    }

    #[test]
    fn the_reach_is_where_phi_meets_the_threshold() {
        for threshold in [1.0, 8.0, 12.0, 16.0] {
            assert!((phi(reach(threshold)) - threshold).abs() < 1e-6);
        }
        // The exact tail of 1e-8 is at 5.61 deviations; the approximation reaches it a little sooner.
        assert!((reach(8.0) - 5.226).abs() < 0.001, "{}", reach(8.0));
    }

    #[test]
    fn gaps_forget_what_falls_out_of_the_window() {
        let mut gaps = Gaps::new(4);
        for gap in [9_000, 2, 4, 4, 6] {
            gaps.push(gap);
        }
        assert_eq!((gaps.mean(), gaps.deviation()), (4.0, 2.0_f64.sqrt()));
    }

    #[test]
    fn a_steady_peer_is_given_up_after_the_mean_and_so_many_least_deviations() {
        let mut watch = Phi::new(SETTING, SECOND, 0);
        for n in 1..=500 {
            watch.answer([0; 8], n * SECOND);
        }
        let after = (watch.evict_at - 500 * SECOND) as f64 / SECOND as f64;
        assert!((after - (1.0 + 0.1 * reach(8.0))).abs() < 1e-3, "{after}");
        let mut pausing = Phi::new(PhiSetting { pause: 3 * SECOND, ..SETTING }, SECOND, 0);
        for n in 1..=500 {
            pausing.answer([0; 8], n * SECOND);
        }
        assert_eq!(pausing.evict_at, watch.evict_at + 3 * SECOND);
    }
}
