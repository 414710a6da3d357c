//! One direction of a connection: bytes in, and out again when the faults let them.
//!
//! The machine has no socket and no clock. Its driver reads no more than [`Link::intake`] allows, passes it
//! to `handle_bytes` or `handle_end`, does what [`Link::poll_due`] says and reports it with `handle_sent`
//! or `handle_fin_sent`, and comes back at [`Link::poll_timeout`] or after `set_faults`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::faults::Faults;

#[cfg(test)]
mod tests;

/// Most bytes that one direction holds; when it is full the proxy stops reading.
pub const LINK_BYTES_MAX: usize = 1024 * 1024;

/// Most reads that are told apart: each carries its own due time. Bounds what one-byte reads cost.
const CHUNKS_MAX: usize = 4096;

/// Capacity that an empty link keeps.
const IDLE_BYTES_MAX: usize = 4096;

/// A rate is kept to within this much time: timers are not exact, and a write per byte would be slow.
const RATE_SLACK: Duration = Duration::from_millis(10);

/// How a sender stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// Whether the driver may read the sender's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// Don't even look: whatever the sender did, it must stay unknown.
    Frozen,
    /// No room for bytes; a reset is news all the same.
    Full,
    /// Read up to this many bytes.
    Room(usize),
}

/// What the driver has to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due<'a> {
    Nothing,
    /// Write some or all of these.
    Bytes(&'a [u8]),
    /// Shut down the receiver's write side.
    Fin,
    /// Reset the connection.
    Reset,
    /// Call `handle_cut` on both directions.
    Cut,
}

/// Bytes of one read.
#[derive(Debug)]
struct Chunk {
    len: usize,
    due: Instant,
}

/// The machine of one direction.
#[derive(Debug)]
pub(crate) struct Link {
    faults: Faults,
    random: fastrand::Rng,
    /// Invariant: as long as the chunks' lengths together.
    bytes: VecDeque<u8>,
    /// Only the front's due time is looked at: a byte never overtakes an earlier one.
    chunks: VecDeque<Chunk>,
    /// With a rate: when the next byte may pass.
    free_at: Option<Instant>,
    end: Option<(End, Instant)>,
    fin_sent: bool,
    /// The proxy ended this direction, not the sender: what the sender still says is dropped.
    severed: bool,
    cut: bool,
    forwarded_bytes: u64,
}

impl Link {
    /// Creates an empty link; equal seeds give equal jitter.
    pub(crate) fn new(faults: Faults, seed: u64) -> Link {
        Link {
            faults,
            random: fastrand::Rng::with_seed(seed),
            bytes: VecDeque::new(),
            chunks: VecDeque::new(),
            free_at: None,
            end: None,
            fin_sent: false,
            severed: false,
            cut: false,
            forwarded_bytes: 0,
        }
    }

    pub(crate) fn faults(&self) -> Faults {
        self.faults
    }

    /// Returns how many bytes have passed.
    pub(crate) fn forwarded_bytes(&self) -> u64 {
        self.forwarded_bytes
    }

    /// Returns how many bytes are under way.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns whether the receiver has been told that no more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.fin_sent
    }

    /// Replaces the faults. Bytes under way keep their due times, unless the new delay is shorter: nothing
    /// waits longer than if it had come in now.
    pub(crate) fn set_faults(&mut self, faults: Faults, now: Instant) {
        self.faults = faults;
        let (_, longest) = faults.delay_bounds();
        let due_max = now + longest;
        for chunk in &mut self.chunks {
            chunk.due = chunk.due.min(due_max);
        }
        self.end = self.end.map(|(end, due)| (end, due.min(due_max)));
        if faults.rate_bytes_per_s.is_none() {
            self.free_at = None;
        } else {
            // A debt made at a lower rate would be paid for far too long at a higher one.
            self.free_at = self.free_at.map(|free_at| free_at.min(now + RATE_SLACK));
        }
    }

    /// Returns whether, and how much, may be read from the sender.
    pub(crate) fn intake(&self) -> Intake {
        if self.faults.frozen {
            return Intake::Frozen;
        }
        let room = LINK_BYTES_MAX - self.bytes.len();
        if room == 0 || self.chunks.len() >= CHUNKS_MAX { Intake::Full } else { Intake::Room(room) }
    }

    /// Takes what was read from the sender: at most what `intake` allowed.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
        if self.severed {
            return;
        }
        debug_assert!(matches!(self.intake(), Intake::Room(room) if bytes.len() <= room));
        let due = self.next_due(now);
        self.bytes.extend(bytes);
        self.chunks.push_back(Chunk { len: bytes.len(), due });
    }

    /// Takes the news that the sender stopped. A reset may follow a FIN, nothing follows a reset.
    pub(crate) fn handle_end(&mut self, end: End, now: Instant) {
        match end {
            End::Fin if self.end.is_some() || self.fin_sent => {}
            End::Fin | End::Reset => self.end = Some((end, self.next_due(now))),
        }
    }

    /// Ends the direction in the sender's place: the receiver gets what is under way, then a FIN.
    pub(crate) fn handle_half_close(&mut self, now: Instant) {
        self.severed = true;
        self.handle_end(End::Fin, now);
    }

    /// Cuts the direction: what is under way is lost, the receiver gets a FIN. A reset stays a reset.
    pub(crate) fn handle_cut(&mut self, now: Instant) {
        self.cut = true;
        self.severed = true;
        self.bytes.clear();
        self.chunks.clear();
        self.end = match self.end {
            Some((End::Reset, _)) => Some((End::Reset, now)),
            Some((End::Fin, _)) | None => (!self.fin_sent).then_some((End::Fin, now)),
        };
    }

    /// Returns what has to be done at `now`. Asking again without doing it gives the same answer.
    pub(crate) fn poll_due(&self, now: Instant) -> Due<'_> {
        if self.faults.frozen {
            return Due::Nothing;
        }
        if !self.cut && self.faults.cut_after_bytes.is_some_and(|limit| self.forwarded_bytes >= limit) {
            return Due::Cut;
        }
        if !self.bytes.is_empty() {
            return match self.allowance(now) {
                0 => Due::Nothing,
                allowance => {
                    let (front, _) = self.bytes.as_slices();
                    Due::Bytes(&front[..allowance.min(front.len())])
                }
            };
        }
        match self.end {
            Some((End::Fin, due)) if due <= now => Due::Fin,
            Some((End::Reset, due)) if due <= now => Due::Reset,
            Some(_) | None => Due::Nothing,
        }
    }

    /// Takes the news that the first `len` due bytes were written.
    pub(crate) fn handle_sent(&mut self, len: usize, now: Instant) {
        self.bytes.drain(..len);
        self.forwarded_bytes += len as u64;
        let mut rest = len;
        while let Some(chunk) = self.chunks.front_mut() {
            let part = chunk.len.min(rest);
            chunk.len -= part;
            rest -= part;
            if chunk.len > 0 {
                break;
            }
            self.chunks.pop_front();
        }
        if let Some(rate) = self.faults.rate_bytes_per_s.filter(|&rate| rate > 0) {
            // A late timer may catch up, but only by the slack: idle time is no credit.
            let earliest = now.checked_sub(RATE_SLACK).unwrap_or(now);
            let from = self.free_at.map_or(now, |free_at| free_at.max(earliest));
            self.free_at = Some(from + time_for(len, rate));
        }
        if self.bytes.is_empty() {
            self.bytes.shrink_to(IDLE_BYTES_MAX);
        }
    }

    /// Takes the news that the receiver got its FIN.
    pub(crate) fn handle_fin_sent(&mut self) {
        self.fin_sent = true;
        self.end = None;
    }

    /// Returns when `poll_due` has more to say; `None`: not before something else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.faults.frozen {
            return None;
        }
        match (self.chunks.front(), self.faults.rate_bytes_per_s) {
            (Some(_), Some(0)) => None,
            (Some(chunk), Some(_)) => Some(self.free_at.map_or(chunk.due, |free_at| free_at.max(chunk.due))),
            (Some(chunk), None) => Some(chunk.due),
            (None, _) => self.end.map(|(_, due)| due),
        }
    }

    /// Returns when the sender's reset arrives. It need not wait for bytes that the receiver won't take.
    pub(crate) fn reset_at(&self) -> Option<Instant> {
        match self.end {
            Some((End::Reset, due)) if !self.faults.frozen => Some(due),
            Some(_) | None => None,
        }
    }

    /// Draws the due time of what comes in now.
    fn next_due(&mut self, now: Instant) -> Instant {
        let (shortest, longest) = self.faults.delay_bounds();
        // DELAY_MAX in nanoseconds fits in 64 bits many times over.
        let held =
            Duration::from_nanos(self.random.u64(shortest.as_nanos() as u64..=longest.as_nanos() as u64));
        now + held
    }

    /// Returns how many bytes may pass in one write.
    fn allowance(&self, now: Instant) -> usize {
        let mut allowance = self.bytes.len();
        match self.faults.rate_bytes_per_s {
            Some(0) => return 0,
            Some(_) if self.free_at.is_some_and(|free_at| free_at > now) => return 0,
            Some(rate) => allowance = allowance.min(bytes_per_slack(rate)),
            None => {}
        }
        if let Some(slice) = self.faults.slice_bytes {
            allowance = allowance.min(slice.max(1));
        }
        if let (Some(limit), false) = (self.faults.cut_after_bytes, self.cut) {
            let left = limit.saturating_sub(self.forwarded_bytes);
            allowance = allowance.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.due_bytes(allowance, now)
    }

    /// Returns how many bytes are due, at most `max`.
    fn due_bytes(&self, max: usize, now: Instant) -> usize {
        let mut due = 0;
        for chunk in &self.chunks {
            if due >= max || chunk.due > now {
                break;
            }
            due += chunk.len;
        }
        due.min(max)
    }
}

/// Returns how long `len` bytes take.
fn time_for(len: usize, rate_bytes_per_s: u64) -> Duration {
    let nanos = (len as u128 * 1_000_000_000).div_ceil(u128::from(rate_bytes_per_s));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Returns how many bytes pass in one slack, at least one.
fn bytes_per_slack(rate_bytes_per_s: u64) -> usize {
    let bytes = u128::from(rate_bytes_per_s) * RATE_SLACK.as_nanos() / 1_000_000_000;
    usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
}
