//! Safety: each verdict is deserved, true, and names the right cause.

use pulsegate_core::{Cause, Leg as Side};
use pulsegate_heartbeat::{Limits, Verdict};

use super::facts::{acknowledges, is_gone, is_healthy, is_mass, is_slow_but_alive};
use super::{Oracle, ROUNDING};
use crate::complaint::Complaint::{self, FalseProof, Unjust, WrongCause};
use crate::link::Way;
use crate::own::{Halt, Own};
use crate::plan::micros;
use crate::world::{Leg, Seat};
use crate::{MS, Time};

/// What is wrong with a verdict.
type Objection = (Complaint, &'static str);

impl Oracle {
    pub(super) fn check_verdict(
        &mut self,
        seats: &[Seat],
        number: usize,
        side: Side,
        verdict: &Verdict,
        own: &Own,
        now: Time,
    ) {
        let leg = seats[number].side(side);
        let case = Case { leg, limits: &self.limits[side.index()].clone(), verdict, own, now };
        let mut objections: Vec<Objection> = case.proof().into_iter().collect();
        match verdict.cause {
            Cause::Unreachable | Cause::Frozen => {
                objections.extend(case.safety());
                objections.extend(case.cause());
                if verdict.cause == Cause::Unreachable
                    && leg.truth.withheld_mass == 0
                    && is_mass(seats, side, now)
                {
                    objections.push((Unjust, "unreachable at once, though most are missing"));
                }
            }
            Cause::WriteStalled => objections.extend(case.stall()),
        }
        for (complaint, what) in objections {
            self.fail(now, number, side, complaint, what, verdict.to_string());
        }
    }
}

/// One verdict, and what it is about.
struct Case<'a> {
    leg: &'a Leg,
    limits: &'a Limits,
    verdict: &'a Verdict,
    own: &'a Own,
    now: Time,
}

impl Case<'_> {
    fn since(&self, time: Time) -> Time {
        self.own.clock(self.now) - self.own.clock(time)
    }

    fn after(&self) -> Time {
        micros(self.limits.verdict_after)
    }

    fn proof(&self) -> Option<Objection> {
        let told = micros(self.verdict.silent_for);
        let wrong = told.abs_diff(self.since(self.leg.truth.read_at)) > ROUNDING;
        wrong.then_some((FalseProof, "the proof tells a silence that was not"))
    }

    /// Nothing that came to our kernel was overlooked, and the peer had its time to answer.
    fn safety(&self) -> Option<Objection> {
        let (leg, truth) = (self.leg, &self.leg.truth);
        let inward = &leg.pipes[Way::In as usize];
        let unheard = self.is_unheard_by_kernel();
        let wrong = if inward.waiting() > 0 && !(truth.paused_since.is_some() && unheard) {
            "dead, but its bytes wait to be read"
        } else if self.since(inward.arrived_at) + ROUNDING < self.after() {
            "dead, but its bytes came within verdict_after"
        } else if truth.probed_at.is_none_or(|at| self.since(at) + ROUNDING < self.after()) && !unheard {
            "dead, but its answer to a probe had less than verdict_after"
        } else if is_healthy(leg, self.limits, self.now)
            // An answer that met our deaf ears comes again within twice that time and one timeout of its sender
            // (RFC 6298 section 5.5); the verdict, by a clock that stood still, falls after that time and its own.
            && self.own.deaf(inward.arrived_at, self.now) + inward.rto <= self.after()
        {
            "dead, but it is alive, answers, and nothing is lost"
        } else if self.is_only_slow() {
            "dead, but it is alive, and its line slow"
        } else if self.had_no_chance() {
            "dead, but we slept and it had not got that time back"
        } else {
            return None;
        };
        Some((Unjust, wrong))
    }

    fn cause(&self) -> Option<Objection> {
        let leg = self.leg;
        let wrong = match self.verdict.cause {
            Cause::Frozen if is_gone(leg, self.limits, self.now) => "frozen, but its host is gone",
            Cause::Unreachable if acknowledges(leg, self.limits) && self.own.deaf(0, self.now) == 0 => {
                "unreachable, but its kernel acknowledges"
            }
            Cause::Unreachable
                if leg.has_view
                    && !self.is_unheard_by_kernel()
                    && leg
                        .out()
                        .stuck_since
                        .is_none_or(|stuck| self.since(stuck) + ROUNDING < self.after()) =>
            {
                "unreachable, but its kernel took bytes within verdict_after"
            }
            Cause::Unreachable | Cause::Frozen | Cause::WriteStalled => return None,
        };
        Some((WrongCause, wrong))
    }

    fn stall(&self) -> Option<Objection> {
        let patience = self.after().min(micros(self.limits.write_stall_after));
        let leg = self.leg;
        let stuck = leg.out().stuck_since.filter(|_| leg.has_view).unwrap_or(leg.truth.taken_at);
        let hasty = self.since(stuck) + ROUNDING < patience;
        hasty.then_some((Unjust, "write stalled, but the peer took bytes"))
    }

    /// Our kernel heard nothing, though it had something to be acknowledged.
    fn is_unheard_by_kernel(&self) -> bool {
        let out = self.leg.out();
        self.leg.has_view && out.view().0 > 0 && self.since(out.heard_at) >= self.after() / 8 * 7 - ROUNDING
    }

    /// Everything arrives, be it late; until `idle_timeout` its kernel's progress speaks for a living peer.
    fn is_only_slow(&self) -> bool {
        let heard = self.leg.truth.read_at;
        is_slow_but_alive(self.leg, self.limits, self.now)
            && self.since(heard) < micros(self.limits.idle_timeout)
            // What was lost while we slept waits for the peer's kernel, which may have backed off.
            && self.own.deaf(self.leg.pipes[Way::In as usize].arrived_at.min(heard), self.now) == 0
    }

    /// The verdict was due while the whole machine slept, and so may the answer have been: a machine that wakes
    /// waits as long as it was late, at most `verdict_after`.
    fn had_no_chance(&self) -> bool {
        let truth = &self.leg.truth;
        let Some(first) = truth.probed_at.filter(|_| truth.paused == 0 && !truth.queued) else {
            return false;
        };
        let clock = |time| self.own.clock(time);
        let due = clock(first) + self.after();
        let tolerance = (self.after() / 10).max(100 * MS) + self.own.lateness;
        self.own.halts.iter().any(|&(from, woke, halt)| {
            let late = clock(woke).saturating_sub(due);
            halt == Halt::Machine
                && clock(from) <= due
                && late > tolerance
                && woke <= self.now
                && self.since(woke) + ROUNDING < late.min(self.after())
        })
    }
}
