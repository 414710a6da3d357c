//! Paces: how fast a frame must come, and how often control frames may.

use std::time::{Duration, Instant};

/// Finds frames that trickle in: within each window at least a minimum of bytes must come while a frame is
/// under way. Without it one byte a minute would keep a frame open for ever, and no control frame could
/// pass to the other side meanwhile (RFC 6455 section 5.4: none within a frame).
#[derive(Clone, Copy, Debug)]
pub struct FrameClock {
    window: Duration,
    bytes_min: u64,
    running: Option<Window>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    ends_at: Instant,
    bytes: u64,
}

impl FrameClock {
    /// Demands `rate_min` bytes per second, averaged over each `window` of an unfinished frame.
    pub fn new(window: Duration, rate_min: u64) -> FrameClock {
        let bytes_min = (window.as_secs_f64() * rate_min as f64) as u64;
        FrameClock { window, bytes_min, running: None }
    }

    /// Takes note of `bytes` read, and whether they end within a frame.
    pub fn handle_read(&mut self, bytes: usize, within_frame: bool, now: Instant) {
        self.running = match (within_frame, self.running) {
            (false, _) => None,
            (true, None) => Some(Window { ends_at: now + self.window, bytes: 0 }),
            (true, Some(window)) => Some(Window { bytes: window.bytes + bytes as u64, ..window }),
        };
    }

    /// Takes note that we stopped reading: slowness that we cause does not count.
    pub fn handle_pause(&mut self, now: Instant) {
        if self.running.is_some() {
            self.running = Some(Window { ends_at: now + self.window, bytes: 0 });
        }
    }

    /// Returns whether the frame under way is too slow.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let Some(window) = self.running.filter(|window| now >= window.ends_at) else { return false };
        self.running = Some(Window { ends_at: now + self.window, bytes: 0 });
        window.bytes < self.bytes_min
    }

    /// Returns when [`handle_timeout`](FrameClock::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.running.map(|window| window.ends_at)
    }
}

/// A token bucket for control frames that a peer may send unasked: pings, and pongs that answer nothing.
/// Twice the rate may come in a burst.
#[derive(Clone, Copy, Debug)]
pub struct ControlBudget {
    rate_per_s: u32,
    /// In thousandths of a frame.
    tokens: u64,
    filled_at: Instant,
}

impl ControlBudget {
    /// Starts full.
    pub fn new(rate_per_s: u32, now: Instant) -> ControlBudget {
        ControlBudget { rate_per_s, tokens: u64::from(rate_per_s) * 2_000, filled_at: now }
    }

    /// Takes one frame from the budget; returns whether there was one.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed_ms = now.saturating_duration_since(self.filled_at).as_millis() as u64;
        if elapsed_ms > 0 {
            let earned = elapsed_ms.saturating_mul(u64::from(self.rate_per_s));
            self.tokens = self.tokens.saturating_add(earned).min(u64::from(self.rate_per_s) * 2_000);
            self.filled_at += Duration::from_millis(elapsed_ms);
        }
        let enough = self.tokens >= 1_000;
        if enough {
            self.tokens -= 1_000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_trickle_is_found_and_a_steady_stream_is_not() {
        for (bytes_per_s, too_slow) in [(1, true), (99, true), (200, false)] {
            let mut clock = FrameClock::new(10 * SECOND, 100);
            let start = origin();
            clock.handle_read(2, true, start);
            for second in 1..10 {
                clock.handle_read(bytes_per_s, true, start + second * SECOND);
                assert!(!clock.handle_timeout(start + second * SECOND));
            }
            clock.handle_read(bytes_per_s, true, start + 10 * SECOND);
            assert_eq!(clock.handle_timeout(clock.poll_timeout().expect("a frame is under way")), too_slow);
        }
    }

    #[test]
    fn the_clock_rests_between_frames_and_while_we_do_not_read() {
        let mut clock = FrameClock::new(10 * SECOND, 100);
        let start = origin();
        clock.handle_read(5, false, start);
        assert_eq!(clock.poll_timeout(), None);
        clock.handle_read(5, true, start);
        clock.handle_pause(start + 9 * SECOND);
        assert_eq!(clock.poll_timeout(), Some(start + 19 * SECOND));
        clock.handle_read(5, false, start + 10 * SECOND);
        assert_eq!(clock.poll_timeout(), None);
    }

    #[test]
    fn a_budget_allows_a_burst_and_then_its_rate() {
        let start = origin();
        let mut budget = ControlBudget::new(10, start);
        assert_eq!((0..100).filter(|_| budget.take(start)).count(), 20);
        let later = start + 3 * SECOND;
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), 20);
        let mut taken = 0;
        for tick in 0..1000u32 {
            taken += usize::from(budget.take(later + tick * Duration::from_millis(10)));
        }
        assert!((99..=101).contains(&taken), "{taken} in 10 s");
    }
}
