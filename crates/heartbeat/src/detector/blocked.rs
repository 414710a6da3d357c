//! A peer that takes no bytes while bytes wait for it.

use std::time::{Duration, Instant};

use pulsegate_core::Cause;

use super::{Detector, Phase, Probing};
use crate::verdict::KernelView;

impl Detector {
    /// Takes note that bytes wait for this peer and its socket takes none; counts from the first call.
    pub fn handle_write_blocked(&mut self, now: Instant) {
        if self.blocked_since.is_none() {
            self.blocked_since = Some(now);
            self.blocked_look_at = None;
        }
    }

    /// Takes note that the socket took bytes; call [`handle_write_blocked`](Detector::handle_write_blocked)
    /// again if some still wait.
    pub fn handle_write_progress(&mut self) {
        self.blocked_since = None;
        self.blocked_look_at = None;
    }

    /// A peer that takes nothing is looked at when its silence reaches the bound (no probe can reach it, so
    /// the missing progress stands in for the unanswered probes); one that goes on sending, or that we don't
    /// read, after as long without progress.
    pub(super) fn blocked_deadline(&self) -> Option<Instant> {
        let since = self.blocked_since?;
        let silent = match self.phase {
            Phase::Dead => return None,
            Phase::Resting => since,
            Phase::Quiet { .. } | Phase::Due | Phase::Probing(_) => self.heard_at,
        };
        let first_look = (since + self.limits.verdict_after).max(silent + self.limits.bound());
        Some(self.blocked_look_at.unwrap_or(first_look.min(since + self.limits.write_stall_after)))
    }

    pub(super) fn handle_blocked_timeout(&mut self, now: Instant, kernel: Option<KernelView>) {
        let (Some(since), Some(deadline)) = (self.blocked_since, self.blocked_deadline()) else { return };
        if now < deadline {
            return;
        }
        let frozen = self.phase != Phase::Resting
            && now >= self.heard_at + self.limits.frozen_after.max(self.limits.bound());
        let until = since + self.limits.write_stall_after;
        let cause = match kernel {
            Some(kernel) if kernel.is_path_dead(self.limits.verdict_after) => Cause::Unreachable,
            Some(_) | None if now >= until || frozen => Cause::WriteStalled,
            Some(_) | None => {
                self.blocked_look_at = Some(until.min(now + self.limits.verdict_after / 2));
                return;
            }
        };
        let probing = match self.phase {
            Phase::Probing(probing) => probing,
            Phase::Quiet { .. } | Phase::Due | Phase::Resting | Phase::Dead => Probing {
                since: now,
                count: 0,
                next_at: None,
                gap: Duration::ZERO,
                suspected: false,
                verdict_at: deadline,
                withheld: 0,
            },
        };
        self.condemn(cause, probing, now - deadline, now, kernel);
    }
}
