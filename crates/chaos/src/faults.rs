//! What may be wrong with one direction of a connection, as plain data.

use std::fmt;
use std::time::Duration;

/// Longest delay, jitter included; a longer one counts as this.
pub const DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// One of the two ways through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// What the client sends.
    ToTarget,
    /// What the target sends.
    ToClient,
}

impl Direction {
    /// Both, in the order in which arrays per direction are laid out.
    pub const BOTH: [Direction; 2] = [Direction::ToTarget, Direction::ToClient];

    /// Returns the opposite direction.
    pub fn other(self) -> Direction {
        match self {
            Direction::ToTarget => Direction::ToClient,
            Direction::ToClient => Direction::ToTarget,
        }
    }

    /// Returns 0 for `ToTarget` and 1 for `ToClient`.
    pub(crate) fn index(self) -> usize {
        match self {
            Direction::ToTarget => 0,
            Direction::ToClient => 1,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::ToTarget => "to_target",
            Direction::ToClient => "to_client",
        })
    }
}

/// The faults of one direction. The default is a clean line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nothing passes and nothing is read: no byte, no FIN, no RST.
    pub frozen: bool,
    /// How long each byte is held, up to [`DELAY_MAX`].
    pub delay: Duration,
    /// Adds a random time between minus and plus this to `delay` (never below zero in sum). Order is kept:
    /// a byte never overtakes an earlier one.
    pub jitter: Duration,
    /// Bytes per second. `Some(0)` lets no byte through, but unlike `frozen` goes on reading until the
    /// direction holds [`LINK_BYTES_MAX`](crate::LINK_BYTES_MAX).
    pub rate_bytes_per_s: Option<u64>,
    /// Most bytes in one write; 0 counts as 1. Each write is a packet of its own as far as the kernel goes
    /// along (Nagle's algorithm is off), but a reader that comes late finds several together.
    pub slice_bytes: Option<usize>,
    /// When this many bytes of the direction have passed, counted from the connection's start, the
    /// connection is cut: what is still under way in either direction is lost, and each end sees a FIN.
    pub cut_after_bytes: Option<u64>,
}

impl Faults {
    /// Returns the shortest and the longest time that a byte may be held.
    pub(crate) fn delay_bounds(&self) -> (Duration, Duration) {
        let shortest = self.delay.saturating_sub(self.jitter).min(DELAY_MAX);
        let longest = self.delay.saturating_add(self.jitter).min(DELAY_MAX);
        (shortest, longest)
    }
}
