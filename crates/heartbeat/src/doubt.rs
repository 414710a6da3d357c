//! Self-doubt: when a verdict may be our own fault.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::limits::Limits;

/// A verdict is put off for late timers at most this often within one silence.
const LATE_MAX: u32 = 3;

/// Fewer missing peers than this are no mass: three of five phones in a tunnel say nothing about us.
const MASS_MIN: usize = 10;

/// Why a verdict was put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Our own timer ran late: we were paused, suspended or starved of CPU, so the peer may have answered
    /// into a void.
    LateTimer,
    /// More than half of all peers went missing at once: it may be our own network that is gone.
    MassSuspicion,
}

impl Doubt {
    /// All of them.
    pub const ALL: [Doubt; 2] = [Doubt::LateTimer, Doubt::MassSuspicion];

    /// Returns the value used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Doubt::LateTimer => "late_timer",
            Doubt::MassSuspicion => "mass_suspicion",
        }
    }
}

/// How late our own timers ran within one silence, or one stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lateness {
    /// At most.
    pub(crate) most: Duration,
    /// The latest that was worth a doubt, and until when it is.
    latest: Option<(Duration, Instant)>,
}

impl Lateness {
    /// Takes note of a timer that fires `now`, so much too late.
    pub(crate) fn note(&mut self, late: Duration, now: Instant, limits: &Limits) {
        self.most = self.most.max(late);
        if late > limits.lateness_max() {
            // Then whoever is there was probed again and had time to answer.
            self.latest = Some((late, now + limits.verdict_after * 2));
        }
    }

    /// Returns by how much a timer was late, if that was lately.
    pub(crate) fn recent(&self, now: Instant) -> Duration {
        self.latest.filter(|&(_, until)| now < until).map_or(Duration::ZERO, |(late, _)| late)
    }
}

/// How often a verdict was put off within one silence or one stall, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    late: u32,
    mass: u32,
    pub(crate) latest: Option<Doubt>,
}

impl Doubts {
    /// Returns how often a verdict was put off for `doubt`.
    pub fn of(self, doubt: Doubt) -> u32 {
        match doubt {
            Doubt::LateTimer => self.late,
            Doubt::MassSuspicion => self.mass,
        }
    }

    /// Returns how often a verdict was put off.
    pub fn withheld(self) -> u32 {
        self.late + self.mass
    }

    /// Returns these and the `older`.
    pub(crate) fn with(self, older: Doubts) -> Doubts {
        Doubts {
            late: self.late + older.late,
            mass: self.mass + older.mass,
            latest: self.latest.or(older.latest),
        }
    }

    /// Returns by how much we were away, if a verdict has to wait for that, and takes note of it. A timer that was
    /// late earlier is as good a sign as the `late` one of the verdict; it counts once.
    pub(crate) fn raise_lost(
        &mut self,
        late: Duration,
        earlier: Lateness,
        now: Instant,
        limits: &Limits,
    ) -> Option<Duration> {
        let lost = if self.late > 0 { late } else { earlier.recent(now) };
        self.raise_late(lost, limits).then_some(lost)
    }

    /// Returns whether a verdict that is `late` has to wait, and takes note of it. Tolerance doubles with each
    /// time, so that a machine which is always late delays verdicts by its lateness, not for ever.
    pub(crate) fn raise_late(&mut self, late: Duration, limits: &Limits) -> bool {
        let raised = self.late < LATE_MAX && late > limits.lateness_max() * (1 << self.late);
        if raised {
            self.late += 1;
            self.latest = Some(Doubt::LateTimer);
        }
        raised
    }

    /// Returns whether a verdict that falls in the midst of a mass of suspects has to wait, and takes note of
    /// it: once, so that a real event is only delayed.
    pub(crate) fn raise_mass(&mut self, mass: bool) -> bool {
        let raised = mass && self.mass == 0;
        if raised {
            self.mass = 1;
            self.latest = Some(Doubt::MassSuspicion);
        }
        raised
    }
}

/// The peers of one leg over all sessions of a process: how many are watched, and how many are missing.
#[derive(Debug, Default)]
pub struct Crowd {
    watched: AtomicUsize,
    missing: AtomicUsize,
    /// When most of them were last seen missing.
    doubtful_at: Mutex<Option<Instant>>,
    /// Whether that is known: every timer asks, and they need no lock as long as all is well.
    remembers: AtomicBool,
}

impl Crowd {
    /// Returns whether so many peers are missing, or were within `memory`, that the fault may be ours: at least
    /// 10, and more than half. When such a fault heals, those who are heard first must not be the doom of the
    /// others.
    pub fn is_doubtful(&self, now: Instant, memory: Duration) -> bool {
        let missing = self.missing.load(Relaxed);
        let doubtful = missing >= MASS_MIN && missing > self.watched.load(Relaxed) / 2;
        if !doubtful && !self.remembers.load(Relaxed) {
            return false;
        }
        let mut doubtful_at = self.doubtful_at.lock().unwrap_or_else(PoisonError::into_inner);
        if doubtful {
            *doubtful_at = Some(now);
        }
        doubtful_at.take_if(|at| now.saturating_duration_since(*at) > memory);
        self.remembers.store(doubtful_at.is_some(), Relaxed);
        doubtful_at.is_some()
    }

    /// Adds a peer; it leaves when the returned value is dropped.
    pub fn join(self: &Arc<Crowd>) -> Member {
        self.watched.fetch_add(1, Relaxed);
        Member { crowd: Arc::clone(self), missing: false }
    }
}

/// One peer's place in its crowd.
#[derive(Debug)]
pub struct Member {
    crowd: Arc<Crowd>,
    missing: bool,
}

impl Member {
    /// Says whether the peer is missing.
    pub fn set_missing(&mut self, missing: bool) {
        if self.missing == missing {
            return;
        }
        self.missing = missing;
        if missing {
            self.crowd.missing.fetch_add(1, Relaxed);
        } else {
            self.crowd.missing.fetch_sub(1, Relaxed);
        }
    }

    /// Returns the crowd that the peer belongs to.
    pub fn crowd(&self) -> &Crowd {
        &self.crowd
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set_missing(false);
        self.crowd.watched.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_crowd_is_doubtful_when_most_of_it_is_missing_and_not_for_a_few() {
        let (start, memory) = (origin(), Duration::from_secs(5));
        let crowd = Arc::new(Crowd::default());
        let mut members: Vec<Member> = (0..20).map(|_| crowd.join()).collect();
        for member in &mut members[..10] {
            member.set_missing(true);
            member.set_missing(true);
        }
        assert!(!crowd.is_doubtful(start, memory), "just half");
        members[10].set_missing(true);
        assert!(crowd.is_doubtful(start, memory));
        members.truncate(11);
        assert!(crowd.is_doubtful(start, memory), "the living leave");
        members.truncate(9);
        assert!(crowd.is_doubtful(start + memory, memory), "it was only just now");
        assert!(!crowd.is_doubtful(start + memory * 2, memory), "all are missing, but they are few");
        assert!(!crowd.remembers.load(Relaxed), "and nobody waits for the lock");
        drop(members);
        assert_eq!((crowd.watched.load(Relaxed), crowd.missing.load(Relaxed)), (0, 0));
    }

    #[test]
    fn tolerance_for_late_timers_doubles_and_ends() {
        let second = Duration::from_secs(1);
        let limits = Limits {
            ping_interval: 5 * second,
            verdict_after: 5 * second,
            frozen_after: 10 * second,
            idle_timeout: 60 * second,
            write_stall_after: 10 * second,
        };
        let mut doubts = Doubts::default();
        assert!(!doubts.raise_late(second / 2, &limits));
        assert!(doubts.raise_late(second, &limits) && !doubts.raise_late(second, &limits));
        assert!(doubts.raise_late(60 * second, &limits) && doubts.raise_late(60 * second, &limits));
        assert!(!doubts.raise_late(60 * second, &limits), "not for ever");
        assert_eq!((doubts.withheld(), doubts.latest), (3, Some(Doubt::LateTimer)));
        assert!(doubts.raise_mass(true) && !doubts.raise_mass(true));
    }
}
