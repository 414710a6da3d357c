//! Knows what really happened, and checks what the machine says. It shares no code with the detector.

mod facts;
mod notes;
mod overdue;
mod truth;
mod verdict;

use pulsegate_core::Leg as Side;
use pulsegate_heartbeat::Limits;
use pulsegate_registry::{Ending, Note};

use crate::complaint::{Complaint, Failure};
use crate::own::Own;
use crate::plan::Plan;
use crate::report::Tally;
use crate::world::Seat;
use crate::{MS, SECOND, Time};
pub(crate) use truth::Truth;

/// What rounding can come to.
const ROUNDING: Time = 2 * MS;
/// So many bytes ahead of a probe, probes themselves say, don't hold it up.
const SMALL: u64 = 200;
/// From one look at what is in flight to the next.
const LOOK: Time = SECOND;

#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) failure: Option<Failure>,
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
            let what = "the ending changed";
            self.fail(now, number, Side::Client, Complaint::Disorder, what, String::new());
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

    fn tell(&mut self, now: Time, what: impl FnOnce() -> String) {
        if self.told {
            self.story.push(format!("{:>12.6} {}", seconds(now), what()));
        }
    }

    fn fail(
        &mut self,
        now: Time,
        number: usize,
        side: Side,
        complaint: Complaint,
        what: &'static str,
        more: String,
    ) {
        if self.failure.is_none() {
            let more = if more.is_empty() { more } else { format!(": {more}") };
            let details = format!("{side} of session {number} at {:.6} s{more}", seconds(now));
            self.failure = Some(Failure { complaint, what, details });
        }
    }
}

fn seconds(time: Time) -> f64 {
    time as f64 / SECOND as f64
}
