//! When to come back.

use std::time::Duration;

/// What was refused begins anew no sooner than after so many doublings.
const PENALTY_ATTEMPTS: u32 = 4;

/// Full jitter: a wait is anywhere between nothing and a bound that doubles, so that those who lost the same peer don't
/// come back at once.
#[derive(Debug)]
pub struct Backoff {
    rng: fastrand::Rng,
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts with waits of at most `min`, which grow to at most `max`.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff { rng: fastrand::Rng::with_seed(seed), min, max, attempts: 0 }
    }

    /// Returns how long to wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let bound = self.min.saturating_mul(1 << self.attempts.min(31)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(self.rng.f64())
    }

    /// Begins anew with short waits.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Makes the next wait long: who was refused would be refused again.
    pub fn penalize(&mut self) {
        self.attempts = self.attempts.max(PENALTY_ATTEMPTS);
    }
}
