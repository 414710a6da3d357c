//! Completeness: nobody who is gone lives on.

use pulsegate_core::Leg as Side;
use pulsegate_heartbeat::Limits;

use super::{LOOK, Oracle, ROUNDING};
use crate::complaint::Complaint;
use crate::link::Way;
use crate::own::Own;
use crate::plan::micros;
use crate::world::{Leg, Seat};
use crate::{SECOND, Time};

impl Oracle {
    /// Checks that no peer of session `number` should have been declared dead by now.
    pub(super) fn check_overdue(&mut self, seat: &Seat, number: usize, own: &Own, now: Time) {
        if seat.driver.session.is_closing() {
            return;
        }
        for side in Side::BOTH {
            let leg = seat.side(side);
            let limits = self.limits[side.index()];
            let check = Check { leg, limits: &limits, own, now };
            let mut complain =
                |what, details| self.fail(now, number, side, Complaint::Overdue, what, details);
            if check.is_stalled() {
                complain("it takes no bytes, and lives on", String::new());
            }
            if leg.truth.paused_since.is_some() {
                continue;
            }
            let habit = seat.driver.session.detector(side).pong_habit().as_str();
            let silence = check.silence();
            if check.is_silent(silence, habit == "never") {
                let silent = silence as f64 / SECOND as f64;
                complain("silent for too long, and lives on", format!("{silent:.3} s, pongs: {habit}"));
            }
            if check.has_lost() {
                complain("what was written to it is lost since long, and it lives on", String::new());
            }
        }
    }
}

/// One leg, now.
struct Check<'a> {
    leg: &'a Leg,
    limits: &'a Limits,
    own: &'a Own,
    now: Time,
}

impl Check<'_> {
    fn since(&self, time: Time) -> Time {
        self.own.clock(self.now).saturating_sub(self.own.clock(time))
    }

    fn heard(&self) -> Time {
        self.leg.pipes[Way::In as usize].arrived_at.max(self.leg.truth.read_at)
    }

    /// What our own faults and the doubts about them may add.
    fn extra(&self) -> Time {
        4 * self.own.lateness
            + 2 * self.own.reaction
            + self.own.halted(self.heard(), self.now)
            + Time::from(self.leg.truth.withheld) * micros(self.limits.verdict_after)
            + ROUNDING
    }

    /// Since when bytes wait of which none is taken. Where the kernel can't tell, the socket's word counts.
    fn stuck_since(&self) -> Option<Time> {
        self.leg.out().stuck_since.filter(|_| self.leg.has_view)
    }

    fn is_stalled(&self) -> bool {
        let Some(stuck) = self.stuck_since() else { return false };
        let after = micros(self.limits.verdict_after);
        // While a verdict is withheld nobody looks, so what was taken meanwhile counts from the end of that.
        let doubts = self.leg.truth.withheld_at.iter().filter(|&&at| at + after >= stuck).count() as Time;
        let patience = micros(self.limits.write_stall_after) + 2 * LOOK;
        let more = self.own.halted(stuck, self.now) + doubts * after;
        self.since(stuck) > patience + more + self.extra()
    }

    fn silence(&self) -> Time {
        // Who is slow to take what was written can't answer what stands behind it.
        let progress = self.stuck_since().unwrap_or(self.leg.truth.taken_at);
        let heard = if self.leg.truth.queued { self.heard().max(progress) } else { self.heard() };
        self.since(heard).saturating_sub(self.leg.truth.paused)
    }

    fn is_silent(&self, silence: Time, never_pongs: bool) -> bool {
        silence > self.bound() + self.extra()
            && (!never_pongs || silence > micros(self.limits.idle_timeout) + self.extra())
    }

    fn has_lost(&self) -> bool {
        let truth = &self.leg.truth;
        let known = self.leg.has_view && self.leg.peer.kind.answers_all();
        let due = micros(self.limits.verdict_after) + 3 * LOOK + self.extra();
        known
            && !truth.queued
            && truth.paused == 0
            && truth.lost_write_at.is_some_and(|lost| self.since(lost.max(self.heard())) > due)
    }

    /// How long a peer of this kind may be silent.
    fn bound(&self) -> Time {
        let (after, sum) = (micros(self.limits.verdict_after), micros(self.limits.bound()));
        if self.leg.truth.queued {
            // Probes found no place, or stood behind much.
            return micros(self.limits.idle_timeout).max(micros(self.limits.write_stall_after)) + 2 * after;
        }
        let heard = self.own.clock(self.heard());
        let kernel = self.own.clock(self.leg.out().heard_at).saturating_sub(heard);
        if !self.leg.has_view || kernel * 2 < micros(self.limits.ping_interval) {
            return sum;
        }
        let frozen = micros(self.limits.frozen_after).max(sum) + after / 8;
        let path_dies = kernel + after * 2 + 2 * LOOK;
        sum.max(frozen.min(path_dies))
    }
}
