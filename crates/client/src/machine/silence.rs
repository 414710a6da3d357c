//! How long the gateway may be silent.

use std::time::{Duration, Instant};

const GRACE_MIN: Duration = Duration::from_secs(1);

/// A verdict that comes later than this was held up on our side.
const LATE_MAX: Duration = Duration::from_secs(1);

/// The wait doubles so often at most.
const PATIENCE_MAX: u32 = 3;

/// The gateway promises to be heard once in a heartbeat; what is silent for a grace longer is lost.
#[derive(Debug)]
pub(super) struct Silence {
    heartbeat: Duration,
    /// So many connections in a row were given up on which nothing came behind WELCOME. Perhaps a large message did, on a
    /// slow line: of that nothing is heard before its end.
    patience: u32,
    has_come: bool,
    was_lost: bool,
    heard_at: Instant,
    /// Until when a verdict waits that would have come from our own stall. Once in a silence, so that one falls.
    excused_until: Option<Instant>,
}

impl Silence {
    /// Starts to listen. A heartbeat of zero promises nothing.
    pub(super) fn new(heartbeat: Duration, now: Instant) -> Silence {
        let (patience, has_come, was_lost) = (0, false, false);
        Silence { heartbeat, patience, has_come, was_lost, heard_at: now, excused_until: None }
    }

    /// Starts anew, on the next connection.
    pub(super) fn handle_welcome(&mut self, heartbeat: Duration, now: Instant) {
        let patience = match (self.has_come, self.was_lost) {
            (true, _) => 0,
            (false, was_lost) => (self.patience + u32::from(was_lost)).min(PATIENCE_MAX),
        };
        *self = Silence { patience, ..Silence::new(heartbeat, now) };
    }

    /// Takes note that something has come whole behind WELCOME.
    pub(super) fn handle_come(&mut self) {
        self.has_come = true;
    }

    pub(super) fn handle_heard(&mut self, now: Instant) {
        (self.heard_at, self.excused_until) = (now, None);
    }

    /// Returns when to ask.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        (!self.heartbeat.is_zero()).then(|| self.heard_at + self.heartbeat + self.heartbeat / 4)
    }

    /// Returns when the gateway counts as lost.
    pub(super) fn lost_at(&self) -> Option<Instant> {
        if self.heartbeat.is_zero() {
            return None;
        }
        Some(
            self.excused_until
                .unwrap_or(self.heard_at + (self.heartbeat + self.grace()) * (1 << self.patience)),
        )
    }

    /// Returns whether the gateway is lost. Whoever slept through the verdict gives it another grace first.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let Some(late) = self.lost_at().and_then(|at| now.checked_duration_since(at)) else { return false };
        if late > LATE_MAX && self.excused_until.is_none() {
            self.excused_until = Some(now + self.grace());
            return false;
        }
        self.was_lost = true;
        true
    }

    fn grace(&self) -> Duration {
        (self.heartbeat / 2).max(GRACE_MIN)
    }
}
