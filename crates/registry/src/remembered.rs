//! What is forgotten in the order in which it came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Names of what is remembered for a while, and of so many at most.
#[derive(Debug)]
pub struct Remembered<K> {
    max: usize,
    ttl: Duration,
    names: VecDeque<(Instant, K)>,
}

impl<K> Remembered<K> {
    /// Starts empty.
    pub fn new(max: usize, ttl: Duration) -> Remembered<K> {
        Remembered { max, ttl, names: VecDeque::new() }
    }

    /// Remembers `name` from `now` on.
    pub fn push(&mut self, name: K, now: Instant) {
        self.names.push_back((now, name));
    }

    /// Returns the next that is to be forgotten: it is too old, or there are too many.
    pub fn poll_forgotten(&mut self, now: Instant) -> Option<K> {
        let too_many = self.names.len() > self.max;
        let is_over =
            |(since, _): &mut (Instant, K)| too_many || now.saturating_duration_since(*since) >= self.ttl;
        self.names.pop_front_if(is_over).map(|(_, name)| name)
    }
}
