//! The order of what a session notes, and a reason for each doubt.

use pulsegate_heartbeat::Doubt;
use pulsegate_registry::Note;

use super::{Oracle, Truth};
use crate::complaint::Complaint::{self, Disorder, Unjust};
use crate::own::Own;
use crate::world::Seat;
use crate::{MS, SECOND, Time};

/// More doubts than this within one silence are no chance, but an excuse.
const DOUBTS_MAX: u32 = 8;

/// What is wrong with a note.
type Objection = Option<(Complaint, &'static str)>;

impl Oracle {
    pub(super) fn check_note(
        &mut self,
        seats: &mut [Seat],
        number: usize,
        note: &Note,
        own: &Own,
        now: Time,
    ) {
        let side = match note {
            Note::Suspected(side)
            | Note::Recovered(side)
            | Note::Withheld(side, _)
            | Note::Spared(side, _)
            | Note::Dead(side, _) => *side,
            // Nobody sends messages here that anybody follows.
            Note::Delivery(_) => return,
        };
        if let Note::Dead(_, verdict) = note {
            self.check_verdict(seats, number, side, verdict, own, now);
        }
        self.tally.count(name(note));
        let watched = seats.len();
        let truth = &mut seats[number].legs[side.index()].truth;
        let was_dead = std::mem::replace(&mut truth.dead, matches!(note, Note::Dead(..)));
        let after = was_dead.then_some((Disorder, "a note after the verdict"));
        for (complaint, what) in after.into_iter().chain(take_note(truth, note, watched, own, now)) {
            self.fail(now, number, side, complaint, what, String::new());
        }
    }
}

fn take_note(truth: &mut Truth, note: &Note, watched: usize, own: &Own, now: Time) -> Objection {
    match note {
        Note::Suspected(_) if truth.probed_at.is_none() => {
            Some((Unjust, "suspected, though heard since the last probe"))
        }
        Note::Suspected(_) => {
            std::mem::replace(&mut truth.suspected, true).then_some((Disorder, "suspected twice"))
        }
        Note::Recovered(_) => (!std::mem::replace(&mut truth.suspected, false))
            .then_some((Disorder, "recovered, but was no suspect")),
        Note::Withheld(_, doubt) => doubted(truth, *doubt, watched, own, now),
        Note::Spared(_, doubts) => {
            let too_many = doubts.withheld() > truth.withheld_open;
            truth.withheld_open = truth.withheld_open.saturating_sub(doubts.withheld());
            too_many.then_some((Disorder, "spared more often than withheld"))
        }
        Note::Dead(_, verdict) => (verdict.doubts.withheld() != truth.withheld_open)
            .then_some((Disorder, "the verdict does not settle what was withheld")),
        Note::Delivery(_) => None,
    }
}

/// A doubt needs a reason.
fn doubted(truth: &mut Truth, doubt: Doubt, watched: usize, own: &Own, now: Time) -> Objection {
    truth.withheld_open += 1;
    truth.withheld += 1;
    truth.withheld_at.push(now);
    let late = own.lateness + own.halted(now.saturating_sub(60 * SECOND), now);
    let wrong = match doubt {
        Doubt::MassSuspicion => {
            truth.withheld_mass += 1;
            (watched < 10).then_some("withheld for a mass of too few")
        }
        Doubt::LateTimer => (late < 100 * MS).then_some("withheld for late timers that were not"),
    };
    let often = (truth.withheld > DOUBTS_MAX).then_some("withheld again and again");
    wrong.or(often).map(|wrong| (Disorder, wrong))
}

fn name(note: &Note) -> String {
    match note {
        Note::Suspected(_) => "suspected".into(),
        Note::Recovered(_) => "recovered".into(),
        Note::Withheld(_, doubt) => format!("withheld {}", doubt.as_str()),
        Note::Spared(..) => "spared".into(),
        Note::Dead(_, verdict) => format!("dead {}", verdict.cause),
        Note::Delivery(_) => "delivery".into(),
    }
}
