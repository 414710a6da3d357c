//! Knows what really happened, and checks what the machine says. It shares no code with the detector.

use pulsegate_core::{Cause, Leg as Side};
use pulsegate_heartbeat::{Doubt, Limits, Verdict};
use pulsegate_registry::{Ending, Note};

use crate::link::Way;
use crate::own::Own;
use crate::plan::{Plan, micros};
use crate::world::{Leg, Seat, Tally};
use crate::{MS, NEVER, SECOND, Time};

/// What rounding can come to.
const ROUNDING: Time = 2 * MS;
/// So many bytes ahead of a probe, probes themselves say, don't hold it up.
const SMALL: u64 = 200;
/// From one look at what is in flight to the next.
const LOOK: Time = SECOND;

/// What is known of one connection beside what is in its kernels.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    /// When we last read something.
    read_at: Time,
    /// When our socket last took something.
    pub(crate) taken_at: Time,
    /// The first and the latest probe since then.
    probes: Option<(Time, Time)>,
    paused_since: Option<Time>,
    /// Time since the last arrival in which we did not read, and whether bytes waited for the peer.
    paused: Time,
    pub(crate) queued: bool,
    /// When the first bytes were written that never arrive.
    pub(crate) lost_write_at: Option<Time>,
    suspected: bool,
    withheld_open: u32,
    /// Within this silence.
    withheld: u32,
    withheld_mass: u32,
    /// When verdicts were withheld.
    withheld_at: Vec<Time>,
    dead: bool,
}

impl Truth {
    pub(crate) fn new(now: Time) -> Truth {
        Truth {
            read_at: now,
            taken_at: now,
            probes: None,
            paused_since: None,
            paused: 0,
            queued: false,
            lost_write_at: None,
            suspected: false,
            withheld_open: 0,
            withheld: 0,
            withheld_mass: 0,
            withheld_at: Vec::new(),
            dead: false,
        }
    }

    /// A probe was put, behind `unacked` bytes that are on their way.
    pub(crate) fn note_probe(&mut self, unacked: u64, now: Time) {
        // What the first of a silence has before it; the others have the first before them.
        self.queued |= unacked > if self.probes.is_none() { 0 } else { SMALL };
        let first = self.probes.map_or(now, |probes| probes.0);
        self.probes = Some((first, now));
    }

    pub(crate) fn note_arrival(&mut self) {
        (self.withheld, self.withheld_mass) = (0, 0);
    }

    pub(crate) fn note_read(&mut self, now: Time) {
        self.read_at = now;
        self.paused = 0;
        self.probes = None;
        self.queued = false;
    }

    pub(crate) fn note_pause(&mut self, paused: bool, now: Time) {
        if paused {
            self.paused_since = Some(now);
        } else if let Some(since) = self.paused_since.take() {
            self.paused += now - since.max(self.read_at);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) failure: Option<String>,
    pub(crate) story: Vec<String>,
    pub(crate) tally: Tally,
    limits: [Limits; 2],
    told: bool,
    endings: Vec<Option<Ending>>,
}

impl Oracle {
    pub(crate) fn new(plan: &Plan, told: bool) -> Oracle {
        let story = if told { vec![format!("{plan:#?}")] } else { Vec::new() };
        let endings = vec![None; plan.sessions.len()];
        Oracle { failure: None, story, tally: Tally::default(), limits: plan.limits, told, endings }
    }

    fn tell(&mut self, now: Time, what: impl FnOnce() -> String) {
        if self.told {
            self.story.push(format!("{:>12.6} {}", now as f64 / SECOND as f64, what()));
        }
    }

    fn fail(&mut self, now: Time, number: usize, side: Side, what: impl Into<String>) {
        let what = format!("{:.6} session {number} {side}: {}", now as f64 / SECOND as f64, what.into());
        self.failure.get_or_insert(what);
    }

    /// Checks what session `number` noted in its turn, and that nobody is overdue in it.
    pub(crate) fn check_turn(
        &mut self,
        seats: &mut [Seat],
        number: usize,
        notes: &[Note],
        own: &Own,
        now: Time,
    ) {
        for note in notes {
            self.tell(now, || format!("session {number}: {note:?}"));
            self.check_note(seats, number, note, own, now);
        }
        let ending = seats[number].driver.session.ending();
        if self.endings[number].is_some() && self.endings[number].as_ref() != ending {
            self.fail(now, number, Side::Client, "the ending changed");
        }
        self.endings[number] = ending.cloned();
        self.check_overdue(&seats[number], number, own, now);
        if self.failure.is_some() {
            self.tell(now, || format!("session {number} in the end: {:#?}", seats[number]));
        }
    }

    /// Checks that nobody is overdue at the end.
    pub(crate) fn check_end(&mut self, seats: &[Seat], own: &Own, now: Time) {
        for (number, seat) in seats.iter().enumerate() {
            self.check_overdue(seat, number, own, now);
        }
    }

    fn check_note(&mut self, seats: &mut [Seat], number: usize, note: &Note, own: &Own, now: Time) {
        let side = match note {
            Note::Suspected(side)
            | Note::Recovered(side)
            | Note::Withheld(side, _)
            | Note::Spared(side, _)
            | Note::Dead(side, _) => *side,
        };
        if let Note::Dead(_, verdict) = note {
            self.check_verdict(seats, number, side, verdict, own, now);
        }
        let watched = seats.len();
        let truth = &mut seats[number].legs[side.index()].truth;
        let was = std::mem::replace(&mut truth.dead, matches!(note, Note::Dead(..)));
        let mut wrong = was.then_some("a note after the verdict");
        match note {
            Note::Suspected(_) => {
                self.tally.count("suspected");
                if truth.probes.is_none() {
                    wrong = Some("suspected, though heard since the last probe");
                }
                if std::mem::replace(&mut truth.suspected, true) {
                    wrong = Some("suspected twice");
                }
            }
            Note::Recovered(_) => {
                self.tally.count("recovered");
                if !std::mem::replace(&mut truth.suspected, false) {
                    wrong = Some("recovered, but was no suspect");
                }
            }
            Note::Withheld(_, doubt) => {
                self.tally.count(format!("withheld {}", doubt.as_str()));
                truth.withheld_open += 1;
                truth.withheld += 1;
                truth.withheld_at.push(now);
                truth.withheld_mass += u32::from(*doubt == Doubt::MassSuspicion);
                let late = own.lateness + own.halted(now.saturating_sub(60 * SECOND), now);
                if *doubt == Doubt::MassSuspicion && watched < 10 {
                    wrong = Some("withheld for a mass of too few");
                } else if *doubt == Doubt::LateTimer && late < 100 * MS {
                    wrong = Some("withheld for late timers that were not");
                } else if truth.withheld > 8 {
                    wrong = Some("withheld again and again");
                }
            }
            Note::Spared(..) => {
                self.tally.count("spared");
                if truth.withheld_open == 0 {
                    wrong = Some("spared, but nothing was withheld");
                }
                truth.withheld_open = truth.withheld_open.saturating_sub(1);
            }
            Note::Dead(_, verdict) => self.tally.count(format!("dead {}", verdict.cause)),
        }
        if let Some(wrong) = wrong {
            self.fail(now, number, side, wrong);
        }
    }

    fn check_verdict(
        &mut self,
        seats: &[Seat],
        number: usize,
        side: Side,
        verdict: &Verdict,
        own: &Own,
        now: Time,
    ) {
        let leg = seats[number].side(side);
        let (limits, truth) = (&self.limits[side.index()], &leg.truth);
        let since = |time: Time| own.clock(now) - own.clock(time);
        let after = micros(limits.verdict_after);
        let inward = &leg.pipes[Way::In as usize];
        let unheard_by_kernel =
            leg.has_view && leg.out().view().0 > 0 && since(leg.out().heard_at) >= after / 8 * 7 - ROUNDING;
        let mut wrong = None;
        let told = micros(verdict.silent_for);
        if told.abs_diff(since(truth.read_at)) > ROUNDING {
            wrong = Some("the proof tells a silence that was not");
        }
        match verdict.cause {
            Cause::Unreachable | Cause::Frozen => {
                if inward.waiting() > 0 && !(truth.paused_since.is_some() && unheard_by_kernel) {
                    wrong = Some("dead, but its bytes wait to be read");
                } else if since(inward.arrived_at) + ROUNDING < after {
                    wrong = Some("dead, but its bytes came within verdict_after");
                } else if truth.probes.is_none_or(|probes| since(probes.0) + ROUNDING < after)
                    && !unheard_by_kernel
                {
                    wrong = Some("dead, but its answer to a probe had less than verdict_after");
                } else if is_healthy(leg, limits, now) && own.deaf(inward.arrived_at, now) == 0 {
                    wrong = Some("dead, but it is alive, answers, and nothing is lost");
                } else if verdict.cause == Cause::Frozen && is_gone(leg, limits, now) {
                    wrong = Some("frozen, but its host is gone");
                } else if verdict.cause == Cause::Unreachable
                    && acknowledges(leg, limits)
                    && own.deaf(0, now) == 0
                {
                    wrong = Some("unreachable, but its kernel acknowledges");
                } else if verdict.cause == Cause::Unreachable
                    && leg.has_view
                    && !unheard_by_kernel
                    && leg.out().stuck_since.is_none_or(|stuck| since(stuck) + ROUNDING < after)
                {
                    wrong = Some("unreachable, but its kernel took bytes within verdict_after");
                } else if verdict.cause == Cause::Unreachable
                    && truth.withheld_mass == 0
                    && is_mass(seats, side, now)
                {
                    wrong = Some("unreachable at once, though most are missing");
                }
            }
            Cause::WriteStalled => {
                let patience = after.min(micros(limits.write_stall_after));
                let stuck = leg.out().stuck_since.filter(|_| leg.has_view).unwrap_or(truth.taken_at);
                if since(stuck) + ROUNDING < patience {
                    wrong = Some("write stalled, but the peer took bytes");
                }
            }
        }
        if let Some(wrong) = wrong {
            self.fail(now, number, side, format!("{wrong} ({verdict})"));
        }
    }

    fn check_overdue(&mut self, seat: &Seat, number: usize, own: &Own, now: Time) {
        if seat.driver.session.is_closing() {
            return;
        }
        for side in Side::BOTH {
            let leg = seat.side(side);
            let limits = &self.limits[side.index()].clone();
            let truth = &leg.truth;
            let heard = leg.pipes[Way::In as usize].arrived_at.max(truth.read_at);
            let extra = 4 * own.lateness
                + 2 * own.reaction
                + own.halted(heard, now)
                + Time::from(truth.withheld) * micros(limits.verdict_after)
                + ROUNDING;
            let since = |time: Time| own.clock(now).saturating_sub(own.clock(time));
            // Where the kernel can't tell, the socket's word counts, and it takes bytes as it likes.
            if let Some(stuck) = leg.out().stuck_since.filter(|_| leg.has_view) {
                let doubts = truth.withheld_at.iter().filter(|&&at| at >= stuck).count() as Time;
                let patience = micros(limits.write_stall_after) + 2 * LOOK;
                let more = own.halted(stuck, now) + doubts * micros(limits.verdict_after);
                if since(stuck) > patience + more + extra {
                    self.fail(now, number, side, "it takes no bytes, and lives on");
                }
            }
            if truth.paused_since.is_some() {
                continue;
            }
            // Who is slow to take what was written can't answer what stands behind it.
            let progress = leg.out().stuck_since.filter(|_| leg.has_view).unwrap_or(truth.taken_at);
            let heard = if truth.queued { heard.max(progress) } else { heard };
            let silence = since(heard).saturating_sub(truth.paused);
            if silence > bound(leg, limits, heard, own) + extra {
                let habit = seat.driver.session.detector(side).pong_habit();
                let silent = silence as f64 / SECOND as f64;
                if habit.as_str() != "never" || silence > micros(limits.idle_timeout) + extra {
                    self.fail(
                        now,
                        number,
                        side,
                        format!("silent for {silent:.3} s, and lives on (pongs: {})", habit.as_str()),
                    );
                }
            }
            let lost = truth.lost_write_at.filter(|_| leg.has_view && leg.peer.kind.answers_all());
            if let Some(lost) = lost.filter(|_| !truth.queued && truth.paused == 0) {
                let due = micros(limits.verdict_after) + 3 * LOOK;
                if since(lost.max(heard)) > due + extra {
                    self.fail(
                        now,
                        number,
                        side,
                        "what was written to it is lost since long, and it lives on",
                    );
                }
            }
        }
    }
}

/// Returns how long a peer of this kind may be silent.
fn bound(leg: &Leg, limits: &Limits, heard: Time, own: &Own) -> Time {
    let (after, sum) = (micros(limits.verdict_after), micros(limits.bound()));
    if leg.truth.queued {
        // Probes found no place, or stood behind much.
        return micros(limits.idle_timeout).max(micros(limits.write_stall_after)) + 2 * after;
    }
    let kernel = own.clock(leg.out().heard_at).saturating_sub(own.clock(heard));
    if !leg.has_view || kernel * 2 < micros(limits.ping_interval) {
        return sum;
    }
    let frozen = micros(limits.frozen_after).max(sum) + after / 8;
    let path_dies = kernel + after * 2 + 2 * LOOK;
    sum.max(frozen.min(path_dies))
}

/// Nothing is the matter with this peer and its path.
fn is_healthy(leg: &Leg, limits: &Limits, now: Time) -> bool {
    leg.peer.kind.answers_all()
        && leg.peer.stops_at > now
        && leg.path.is_clean()
        && is_quick(leg, limits)
        && leg.truth.paused_since.is_none()
}

/// Nothing passes either way, since before the silence could have been probed.
fn is_gone(leg: &Leg, limits: &Limits, now: Time) -> bool {
    let probed = leg.truth.probes.map_or(now, |probes| probes.0);
    // One whose retransmission is not due yet can't know.
    leg.out().rto < micros(limits.verdict_after) / 4
        && leg.path.dead_from() < probed.saturating_sub(micros(limits.verdict_after) / 4)
}

/// Round trip and answer never take long, however unlucky.
fn is_quick(leg: &Leg, limits: &Limits) -> bool {
    let slowest = 2 * leg.path.delay + 80 * leg.path.jitter + leg.peer.think;
    slowest < micros(limits.verdict_after) / 4
}

/// Its kernel gets and acknowledges everything.
fn acknowledges(leg: &Leg, limits: &Limits) -> bool {
    leg.has_view && leg.path.is_clean() && is_quick(leg, limits)
}

/// At least ten suspects, more than half of all, are cut off as far as one can know.
fn is_mass(seats: &[Seat], side: Side, now: Time) -> bool {
    let missing = |seat: &&Seat| {
        let leg = seat.side(side);
        let probed = leg.truth.probes.map_or(NEVER, |probes| probes.0);
        leg.truth.suspected
            && !leg.truth.dead
            && !seat.driver.session.is_closing()
            && leg.peer.kind.answers_all()
            && (!leg.has_view || leg.path.is_cut(Way::In, now) && leg.out().heard_at < probed)
    };
    let count = seats.iter().filter(missing).count();
    count >= 11 && count > seats.len() / 2 + 1
}
