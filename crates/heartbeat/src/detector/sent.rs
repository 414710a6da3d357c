//! The probes that went out: which pong is ours, and how long it took.

use std::time::{Duration, Instant};

/// How many probes are remembered with their time; older ones are still known as ours.
const REMEMBERED: usize = 4;

/// Names a probe; its eight bytes are the payload of the ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId(u64);

impl ProbeId {
    /// Reads back what [`to_payload`](ProbeId::to_payload) made.
    pub fn from_payload(payload: [u8; 8]) -> ProbeId {
        ProbeId(u64::from_be_bytes(payload))
    }

    /// Returns the payload of the ping, and of the pong that answers it.
    pub fn to_payload(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

#[derive(Debug)]
pub(super) struct SentProbes {
    /// Ids start at random, so that a pong which answers somebody else is not taken for ours.
    first: u64,
    count: u64,
    times: [Option<Instant>; REMEMBERED],
}

impl SentProbes {
    pub(super) fn new(random: u64) -> SentProbes {
        SentProbes { first: random, count: 0, times: [None; REMEMBERED] }
    }

    pub(super) fn push(&mut self, now: Instant) -> ProbeId {
        let id = ProbeId(self.first.wrapping_add(self.count));
        self.times[(self.count % REMEMBERED as u64) as usize] = Some(now);
        self.count += 1;
        id
    }

    /// Takes note that the probe sent last has left only `now`: it stood behind other bytes.
    pub(super) fn stamp_latest(&mut self, now: Instant) {
        if let Some(latest) = self.count.checked_sub(1) {
            self.times[(latest % REMEMBERED as u64) as usize] = Some(now);
        }
    }

    /// Returns `None` for a payload that is not ours, else when it was sent if that is still known and this
    /// is its first answer.
    pub(super) fn find(&mut self, payload: &[u8]) -> Option<(ProbeId, Option<Instant>)> {
        let id = u64::from_be_bytes(payload.try_into().ok()?);
        let number = id.wrapping_sub(self.first);
        if number >= self.count {
            return None;
        }
        let remembered = self.count - number <= REMEMBERED as u64;
        let sent_at =
            if remembered { self.times[(number % REMEMBERED as u64) as usize].take() } else { None };
        Some((ProbeId(id), sent_at))
    }

    /// Returns whether `payload` is that of the probe sent last.
    pub(super) fn is_latest(&self, payload: &[u8]) -> bool {
        self.count > 0 && payload == self.first.wrapping_add(self.count - 1).to_be_bytes()
    }

    /// Returns when the last `count` probes went out, as time since `start`; as many as are remembered.
    pub(super) fn times_since(&self, start: Instant, count: u32) -> Vec<Duration> {
        let shown = u64::from(count).min(self.count).min(REMEMBERED as u64);
        (self.count - shown..self.count)
            .filter_map(|number| self.times[(number % REMEMBERED as u64) as usize])
            .map(|sent| sent.saturating_duration_since(start))
            .collect()
    }
}
