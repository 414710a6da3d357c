//! The app's connection is lost and the app may come back: the session waits for it and asks for dials.

use std::time::{Duration, Instant};

use pulsegate_core::{Backoff, EndReason, Leg};

use pulsegate_heartbeat::{Detector, PongHabit};

use super::app::AppLeg;
use super::{V1Note, V1Session};
use crate::session::Ending;

/// Waits between two dials are drawn below a bound that grows from the first to the second.
const DIAL_WAIT_MIN: Duration = Duration::from_millis(250);
const DIAL_WAIT_MAX: Duration = Duration::from_secs(5);

/// So many of the messages that waited are given to an app that is back until it has answered for some: if it crashes again
/// it gets few of them for another time.
const REPLAY_STEP: u32 = 16;

/// The app's connection is lost.
#[derive(Debug)]
pub(super) struct Hold {
    since: Instant,
    /// The app has until then to come back.
    until: Instant,
    /// What becomes of the session if it doesn't.
    ending: Ending,
    /// What the client is told then.
    told: Box<str>,
    backoff: Backoff,
    /// The app is one that answers pings.
    answers: bool,
    phase: Phase,
}

/// A dial of an app that may be back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// So many of the messages that it gets first an earlier connection may have got.
    pub repeats: u64,
    /// Nobody waits for it any more from then on.
    pub until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting {
        dial_at: Instant,
    },
    Dialing,
    /// It is back. If it is lost again before this time the next dial waits for longer; and if it has not handled anything
    /// until then it gets no more time than it had, since it may crash in a loop.
    Back {
        steady_at: Instant,
    },
}

/// Returns whether an app that leaves like this may come back: it was cut off, or its Close says that it restarts
/// (RFC 6455 section 7.4.1 and the IANA registry: going away, internal error, service restart, try again later).
fn may_return(ending: &Ending) -> bool {
    match ending.reason {
        EndReason::Reset | EndReason::Unreachable | EndReason::Frozen | EndReason::WriteStalled => true,
        EndReason::Closed => {
            ending.close.as_ref().is_some_and(|close| matches!(close.code, 1001 | 1011 | 1012 | 1013))
        }
        EndReason::ProtocolError
        | EndReason::Kicked
        | EndReason::Drained
        | EndReason::Expired
        | EndReason::Limit => false,
    }
}

impl Hold {
    fn is_steady(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Back { steady_at } if now >= steady_at)
    }
}

impl V1Session {
    /// Returns whether the session waits for its app to come back.
    pub fn is_app_awaited(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| !matches!(hold.phase, Phase::Back { .. }))
    }

    /// The app is lost; returns whether the session waits for it.
    pub(super) fn hold(&mut self, ending: &Ending, told: &str, now: Instant) -> bool {
        if self.limits.app_hold.is_zero() || !may_return(ending) {
            return false;
        }
        let before = self.hold.take().filter(|hold| !hold.is_steady(now)).map(|hold| *hold);
        let habit = self.detector(Leg::App).map(Detector::pong_habit);
        let answers = habit == Some(PongHabit::Answers) || before.as_ref().is_some_and(|hold| hold.answers);
        let fresh = (now, now + self.limits.app_hold);
        let ((since, until), mut backoff) = match before {
            Some(hold) if self.app.has_handled() => (fresh, hold.backoff),
            Some(hold) => ((hold.since, hold.until), hold.backoff),
            None => (fresh, Backoff::new(DIAL_WAIT_MIN, DIAL_WAIT_MAX, self.tokens.seed())),
        };
        if now >= until {
            return false;
        }
        let phase = Phase::Waiting { dial_at: now + backoff.wait() };
        let (ending, told) = (ending.clone(), told.into());
        self.hold = Some(Box::new(Hold { since, until, ending, told, backoff, answers, phase }));
        true
    }

    /// Returns what to dial the app with, if it is to be dialled now. Tell of the outcome by [`handle_app_dialled`](V1Session::handle_app_dialled) or
    /// [`handle_dial_failed`](V1Session::handle_dial_failed).
    pub fn poll_dial(&mut self, now: Instant) -> Option<Dial> {
        // The old connection goes first.
        let is_gone = self.app.end.is_done() && self.closing.is_none();
        let hold = self.hold.as_mut().filter(|_| is_gone)?;
        match hold.phase {
            Phase::Waiting { dial_at } if now >= dial_at => {
                hold.phase = Phase::Dialing;
                Some(Dial { repeats: self.under_way.repeats(), until: hold.until })
            }
            Phase::Waiting { .. } | Phase::Dialing | Phase::Back { .. } => None,
        }
    }

    /// Takes a new connection to the app; `seed` is for its detector. Returns whether the session still wants it.
    pub fn handle_app_dialled(&mut self, seed: u64, now: Instant) -> bool {
        let Some(hold) = self.hold.as_mut().filter(|hold| hold.phase == Phase::Dialing) else { return false };
        hold.phase = Phase::Back { steady_at: now + DIAL_WAIT_MAX };
        let outage = now.saturating_duration_since(hold.since);
        let again = self.under_way.repeats();
        let steps = hold.answers.then_some(REPLAY_STEP);
        self.app = AppLeg::new(&self.limits, &self.crowds[Leg::App.index()], seed, now);
        self.app.unanswered_max = steps;
        self.notes.push_back(V1Note::AppResumed { outage, again });
        true
    }

    /// Takes note that a dial failed. `refused`: the app answered, and doesn't want this session any more; what the client
    /// is told.
    pub fn handle_dial_failed(&mut self, refused: Option<&str>, now: Instant) {
        let Some(hold) = self.hold.as_mut().filter(|hold| hold.phase == Phase::Dialing) else { return };
        match refused {
            Some(told) => {
                hold.told = told.into();
                self.give_app_up(now);
            }
            None => hold.phase = Phase::Waiting { dial_at: now + hold.backoff.wait() },
        }
    }

    /// The app does not come back: the client gets what it said before, and that is the end.
    fn give_app_up(&mut self, now: Instant) {
        if let Some(hold) = self.hold.take() {
            self.bid_farewell(hold.ending, &hold.told, now);
        }
    }

    pub(super) fn handle_hold_timeout(&mut self, now: Instant) {
        let Some(hold) = &self.hold else { return };
        match hold.phase {
            Phase::Back { .. } if hold.is_steady(now) => self.hold = None,
            Phase::Waiting { .. } | Phase::Dialing if now >= hold.until => self.give_app_up(now),
            Phase::Waiting { .. } | Phase::Dialing | Phase::Back { .. } => {}
        }
    }

    /// Returns when [`handle_hold_timeout`](V1Session::handle_hold_timeout) or [`poll_dial`](V1Session::poll_dial) has
    /// something to do.
    pub(super) fn poll_hold_timeout(&self) -> Option<Instant> {
        let hold = self.hold.as_ref()?;
        match hold.phase {
            Phase::Waiting { dial_at } => {
                let dial_at = Some(dial_at).filter(|_| self.app.end.is_done());
                Some(dial_at.map_or(hold.until, |dial_at| dial_at.min(hold.until)))
            }
            Phase::Dialing => Some(hold.until),
            Phase::Back { steady_at } => Some(steady_at),
        }
    }
}
