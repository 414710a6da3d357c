//! Does the peer answer pings at all?

use super::Detector;

/// So many silences in a row, each with unanswered probes and each ended by data, make a peer that has
/// answered before into one that never does.
const IGNORED_MAX: u8 = 3;

/// Whether the peer answers WebSocket pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PongHabit {
    /// No probe was answered yet, and no evidence against it.
    Unknown,
    /// It has answered.
    Answers,
    /// It left probes unanswered and went on sending: some native stacks do.
    Never,
}

impl PongHabit {
    /// Returns the value shown in the control API.
    pub fn as_str(self) -> &'static str {
        match self {
            PongHabit::Unknown => "unknown",
            PongHabit::Answers => "answers",
            PongHabit::Never => "never",
        }
    }
}

impl Detector {
    /// Takes note of a silence with unanswered probes that ended by something else than a pong (if it was one
    /// after all, that is told next). One such silence may be a stall of the network.
    pub(super) fn note_ignored(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
        if self.habit == PongHabit::Unknown || self.ignored >= IGNORED_MAX {
            self.habit = PongHabit::Never;
        }
    }
}
