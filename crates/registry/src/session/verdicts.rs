//! What the detectors tell, and what a verdict means for a session.

use std::time::Instant;

use pulsegate_core::{Cause, CloseFrame, Leg};
use pulsegate_heartbeat::{Event, Verdict};

use super::{Ending, Note, Order, Session};

impl Session {
    /// Takes what the detector of `leg` has to tell.
    pub(super) fn collect(&mut self, leg: Leg, now: Instant) {
        let detector = &mut self.detectors[leg.index()];
        self.members[leg.index()].set_missing(self.closing.is_none() && detector.is_missing());
        while let Some(event) = self.detectors[leg.index()].poll_event() {
            let note = match event {
                Event::Suspected => Note::Suspected(leg),
                Event::Recovered => Note::Recovered(leg),
                Event::Withheld(doubt) => Note::Withheld(leg, doubt),
                Event::Spared(doubts) => Note::Spared(leg, doubts),
                Event::Dead(verdict) => {
                    self.condemn(leg, &verdict, now);
                    Note::Dead(leg, verdict)
                }
            };
            self.notes.push_back(note);
        }
    }

    fn condemn(&mut self, leg: Leg, verdict: &Verdict, now: Instant) {
        let codes = self.limits.codes;
        let code = match (leg, verdict.cause) {
            (Leg::Client, Cause::Unreachable | Cause::Frozen | Cause::WriteStalled) => codes.dead_client,
            (Leg::App, Cause::Unreachable) => codes.dead_app,
            (Leg::App, Cause::Frozen | Cause::WriteStalled) => codes.frozen_app,
        };
        let (found, farewell) = verdict_words(leg, verdict, codes.dead_client);
        let told = CloseFrame::new(code, &found);
        let end = &mut self.legs[leg.index()];
        end.order(Order::Abandon(verdict.cause, farewell));
        end.done = true;
        self.close_leg(leg.other(), told.clone());
        let reason = verdict.cause.into();
        self.end(
            Ending {
                reason,
                leg: Some(leg),
                close: Some(told),
                detail: None,
                verdict: Some(verdict.to_string()),
            },
            now,
        );
        self.note_leg_done();
    }
}

/// Returns what the other side is told of a verdict, and the Close frame for the dead, if it may wake up.
pub(crate) fn verdict_words(leg: Leg, verdict: &Verdict, code: u16) -> (String, Option<CloseFrame>) {
    let silent = verdict.silent_for.as_secs_f64();
    let found = match verdict.write_stalled_for {
        Some(stalled) => format!("took no bytes for {:.1} s", stalled.as_secs_f64()),
        None => format!("silent for {silent:.1} s"),
    };
    let farewell = match verdict.cause {
        // A process that wakes up later finds out why it is alone.
        Cause::Frozen => Some(CloseFrame::new(code, &format!("no answer for {silent:.1} s"))),
        Cause::Unreachable | Cause::WriteStalled => None,
    };
    (format!("{leg} {}: {found}", verdict.cause), farewell)
}
