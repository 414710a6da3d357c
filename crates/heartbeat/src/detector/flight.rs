//! Bytes on their way to the peer: does its kernel take them?

use std::time::{Duration, Instant};

use pulsegate_core::Cause;

use super::{Detector, Phase, PongHabit};
use crate::doubt::{Doubts, Lateness};
use crate::verdict::KernelView;

/// How long after a write the kernel is asked whether it was acknowledged, and from one such look to the
/// next: a busy leg costs one look a second, an idle one none.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was written and may not have arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flight {
    /// Bytes that the socket took, ever.
    pub(super) written: u64,
    /// When it last took some.
    written_at: Option<Instant>,
    /// How many of them the peer's kernel had taken at the last look.
    delivered: u64,
    /// Bytes wait, and the peer's kernel has taken none since; where the kernel can't tell: the socket.
    pub(super) waiting_since: Option<Instant>,
    /// How late the looks at this stall were.
    late: Lateness,
    /// When to ask the kernel again.
    look_at: Option<Instant>,
    /// The socket takes no more.
    socket_full: bool,
    /// The kernel can't tell on this system.
    blind: bool,
    /// The latest probe was not written to its end yet.
    probe_waits: bool,
    /// Bytes written when the latest probe is.
    probe_end: u64,
    /// Doubts about the stall; a peer that is heard ends its silence and not its stall.
    pub(super) doubts: Doubts,
    /// No verdict on the stall falls before then.
    grace_until: Option<Instant>,
}

impl Flight {
    /// How many of the bytes that the socket took the peer's kernel has acknowledged.
    pub(super) fn delivered(&self, kernel: KernelView) -> u64 {
        self.written.saturating_sub(kernel.unacked_bytes)
    }

    /// Returns how long bytes have waited for a peer that takes none.
    pub(super) fn waiting_for(&self, now: Instant) -> Option<Duration> {
        self.waiting_since.map(|since| now.saturating_duration_since(since))
    }

    /// Takes note that a probe of `len` bytes goes out behind `ahead` others.
    pub(super) fn queue_probe(&mut self, ahead: usize, len: usize) {
        self.probe_end = self.written + (ahead + len) as u64;
        self.probe_waits = true;
    }

    pub(super) fn is_probe_waiting(&self) -> bool {
        self.probe_waits
    }

    fn wait(&mut self, now: Instant, look_every: Duration) {
        if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
            self.look_at = Some(now + look_every);
            self.delivered = self.written;
        }
    }
}

impl Detector {
    /// Takes note that the socket took `bytes`; call [`handle_write_blocked`](Detector::handle_write_blocked)
    /// again if some still wait.
    pub fn handle_written(&mut self, bytes: usize, now: Instant) {
        if self.flight.blind {
            // The socket's word is all there is: it takes bytes, so nothing stalls.
            self.land();
        } else if bytes > 0 {
            self.flight.wait(now, self.look_every());
        }
        self.flight.socket_full = false;
        self.flight.written += bytes as u64;
        self.flight.written_at = Some(now);
        if self.flight.probe_waits && self.flight.written >= self.flight.probe_end {
            self.flight.probe_waits = false;
            self.handle_probe_written(now);
        }
    }

    /// Takes note that bytes wait for this peer and its socket takes none; counts from the first call.
    pub fn handle_write_blocked(&mut self, now: Instant) {
        self.flight.wait(now, self.look_every());
        self.flight.socket_full = true;
    }

    /// The peer answered the latest probe, so it has read all that was written before (frames stay in order).
    pub(super) fn handle_answer(&mut self) {
        if !self.flight.socket_full && self.flight.written <= self.flight.probe_end {
            self.land();
        }
    }

    /// Takes note of what the kernel says: whether the peer's goes on taking bytes.
    pub(super) fn observe(&mut self, kernel: KernelView, now: Instant) {
        self.flight.blind = false;
        let delivered = self.flight.delivered(kernel);
        self.note_delivery(kernel, now);
        let Some(since) = self.flight.waiting_since else { return };
        if delivered > self.flight.delivered || kernel.unacked_bytes == 0 {
            self.flight.delivered = delivered;
            // What was written after the last acknowledgement waits no longer than since then.
            let last_ack = now.checked_sub(kernel.since_last_ack);
            let taken_at = last_ack.max(self.flight.written_at).map_or(since, |at| at.max(since));
            let due_at = self.flight_deadline().filter(|&deadline| taken_at <= deadline);
            self.note_progress(taken_at, now, kernel.unacked_bytes);
            if let Some(due_at) = due_at {
                // We came late to see it, and nothing was taken since.
                self.flight.late.note(now.saturating_duration_since(due_at), now, &self.limits);
            }
        }
    }

    pub(super) fn flight_deadline(&self) -> Option<Instant> {
        self.flight.look_at.filter(|_| self.phase != Phase::Dead)
    }

    /// Looks whether what was written arrives. `mass`: most peers are missing.
    pub(super) fn handle_flight(&mut self, now: Instant, kernel: Option<KernelView>, mass: bool) {
        let Some(deadline) = self.flight_deadline().filter(|&deadline| now >= deadline) else { return };
        if kernel.is_none() {
            let told = std::mem::replace(&mut self.flight.blind, true);
            if !self.flight.socket_full {
                self.land();
                return;
            } else if !told {
                // Until now its taking bytes was not told: the stall counts from here.
                self.flight.waiting_since = Some(now);
            }
        }
        let Some(since) = self.flight.waiting_since else { return };
        let late = now - deadline;
        self.flight.late.note(late, now, &self.limits);
        let grace = self.grace_until.max(self.flight.grace_until);
        let verdict_at = grace.max(Some(self.stall_verdict_at(since))).unwrap_or(now);
        if now >= verdict_at {
            self.judge_stall(since, late, now, kernel, mass);
        } else {
            self.flight.look_at = Some(verdict_at.min(now + self.look_every()));
            // Nothing of what we wrote arrives, and our kernel asked again in vain: the interval need not pass.
            let lost = kernel.is_some_and(|kernel| kernel.is_path_dead(self.look_every() / 2));
            if lost && matches!(self.phase, Phase::Quiet { .. }) && self.resting_since.is_none() {
                self.start_due(now, late);
            }
        }
    }

    /// The peer's kernel goes on taking bytes, and did so last no later than `taken_at`.
    fn note_progress(&mut self, taken_at: Instant, now: Instant, unacked_bytes: u64) {
        if unacked_bytes == 0 && !self.flight.socket_full {
            self.land();
            return;
        }
        self.spare_stalled();
        self.flight.waiting_since = Some(if unacked_bytes == 0 { now } else { taken_at });
        self.flight.look_at = Some(now + self.look_every());
    }

    /// Everything has arrived.
    fn land(&mut self) {
        self.spare_stalled();
        let Flight { written, written_at, blind, probe_waits, probe_end, .. } = self.flight;
        self.flight = Flight { written, written_at, blind, probe_waits, probe_end, ..Flight::default() };
    }

    fn spare_stalled(&mut self) {
        self.flight.grace_until = None;
        self.flight.late = Lateness::default();
        let doubts = std::mem::take(&mut self.flight.doubts);
        self.tell_spared(doubts);
    }

    fn look_every(&self) -> Duration {
        LOOK_EVERY.min(self.limits.verdict_after / 2)
    }

    /// A peer that takes nothing is given up after `write_stall_after`, whatever it sends; one that is silent as
    /// well as soon as its silence reaches the bound: if no probe can reach it, the missing progress stands in
    /// for the unanswered ones.
    fn stall_verdict_at(&self, since: Instant) -> Instant {
        let silent = if self.resting_since.is_some() { since } else { self.silent_since };
        let bound = (since + self.limits.verdict_after).max(silent + self.limits.bound());
        bound.min(since + self.limits.stall_after())
    }

    fn judge_stall(
        &mut self,
        since: Instant,
        late: Duration,
        now: Instant,
        kernel: Option<KernelView>,
        mass: bool,
    ) {
        let frozen = self.resting_since.is_none()
            && self.habit != PongHabit::Never
            && now >= self.silent_since + self.limits.frozen_after.max(self.limits.bound());
        // Somebody who is heard is not unreachable, whatever becomes of our bytes.
        let unheard = self.resting_since.is_some() || now >= self.silent_since + self.limits.verdict_after;
        let path_dead = kernel.is_some_and(|kernel| kernel.is_path_dead(self.limits.verdict_after));
        self.flight.look_at = Some(now + self.look_every());
        let stalled = frozen || now >= since + self.limits.stall_after();
        let cause = match (unheard && path_dead, stalled) {
            (true, _) => Cause::Unreachable,
            (false, true) => Cause::WriteStalled,
            (false, false) => return,
        };
        let verdict_after = self.limits.verdict_after;
        if let Some(lost) = self.flight.doubts.raise_lost(late, self.flight.late, now, &self.limits) {
            let until = now + lost.min(verdict_after);
            self.flight.grace_until = Some(until);
            self.withhold(self.flight.doubts, until);
        } else if cause == Cause::Unreachable && self.doubts.raise_mass(mass) {
            self.withhold(self.doubts, now + verdict_after);
        } else {
            let verdict = self.verdict(cause, self.probes_unanswered(), self.flight.late.most, now, kernel);
            self.condemn(verdict);
        }
    }
}
