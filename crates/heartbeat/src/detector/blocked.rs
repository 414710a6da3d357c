//! A peer that takes no bytes while bytes wait for it.

use std::time::Instant;

use pulsegate_core::Cause;

use super::{Detector, Event, Phase, WITHHELD_MAX};
use crate::verdict::KernelView;

/// Bytes wait for the peer and its socket takes none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocked {
    /// When the socket, or else the peer's kernel, last took any.
    pub(super) since: Instant,
    /// When to look next; `None`: when a verdict may be due.
    look_at: Option<Instant>,
    /// How many bytes the peer's kernel had taken at the last look.
    delivered: Option<u64>,
    withheld: u32,
}

impl Detector {
    /// Takes note that bytes wait for this peer and its socket takes none; counts from the first call.
    pub fn handle_write_blocked(&mut self, now: Instant) {
        if self.blocked.is_none() {
            let look_at = Some(self.halfway(now));
            self.blocked = Some(Blocked { since: now, look_at, delivered: None, withheld: 0 });
        }
    }

    /// Takes note that the socket took `bytes`; call [`handle_write_blocked`](Detector::handle_write_blocked)
    /// again if some still wait.
    pub fn handle_written(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.blocked = None;
    }

    pub(super) fn blocked_deadline(&self) -> Option<Instant> {
        let blocked = self.blocked.filter(|_| self.phase != Phase::Dead)?;
        Some(blocked.look_at.unwrap_or_else(|| self.blocked_verdict_at(blocked)))
    }

    pub(super) fn handle_blocked_timeout(&mut self, now: Instant, kernel: Option<KernelView>) {
        let (Some(mut blocked), Some(deadline)) = (self.blocked, self.blocked_deadline()) else { return };
        if now < deadline {
            return;
        }
        let late = now - deadline;
        let delivered = kernel.map(|kernel| self.delivered(kernel));
        let grown = blocked.delivered.is_some() && delivered > blocked.delivered;
        blocked.delivered = delivered;
        if grown {
            // Slow, not stalled: a socket takes bytes in large steps, the peer's kernel in small ones.
            blocked.since = now;
            blocked.look_at = Some(self.halfway(now));
        } else if now < self.blocked_verdict_at(blocked) {
            blocked.look_at = None;
        } else if late > self.lateness_tolerated(blocked.withheld) && blocked.withheld < WITHHELD_MAX {
            blocked.withheld += 1;
            blocked.look_at = Some(now + late.min(self.limits.verdict_after));
            self.event = Some(Event::Withheld);
        } else if let Some(cause) = self.judge_blocked(blocked, now, kernel) {
            self.condemn(cause, self.probes_unanswered(), blocked.withheld, late, now, kernel);
        } else {
            let until = blocked.since + self.limits.write_stall_after;
            blocked.look_at = Some(until.min(now + self.limits.verdict_after / 2));
        }
        self.blocked = Some(blocked);
    }

    /// Where the first look at the kernel shows from which point on it goes on taking bytes.
    fn halfway(&self, since: Instant) -> Instant {
        since + (self.limits.verdict_after / 2).min(self.limits.write_stall_after)
    }

    /// A peer that takes nothing is judged when its silence reaches the bound (no probe can reach it, so
    /// the missing progress stands in for the unanswered probes); one that goes on sending, or that we don't
    /// read, after as long without progress.
    fn blocked_verdict_at(&self, blocked: Blocked) -> Instant {
        let silent = if self.resting_since.is_some() { blocked.since } else { self.silent_since };
        let bound = (blocked.since + self.limits.verdict_after).max(silent + self.limits.bound());
        bound.min(blocked.since + self.limits.write_stall_after)
    }

    fn judge_blocked(&self, blocked: Blocked, now: Instant, kernel: Option<KernelView>) -> Option<Cause> {
        let frozen = self.resting_since.is_none()
            && now >= self.silent_since + self.limits.frozen_after.max(self.limits.bound());
        if kernel.is_some_and(|kernel| kernel.is_path_dead(self.limits.verdict_after)) {
            Some(Cause::Unreachable)
        } else if frozen || now >= blocked.since + self.limits.write_stall_after {
            Some(Cause::WriteStalled)
        } else {
            None
        }
    }
}
