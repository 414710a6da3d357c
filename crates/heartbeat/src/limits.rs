//! The bounds of one leg.

use std::time::Duration;

/// Smallest tolerance for our own timers.
const LATENESS_MIN: Duration = Duration::from_millis(100);

/// The bounds that a [`crate::Detector`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A silent peer is probed no later than this after its last byte.
    pub ping_interval: Duration,
    /// Time from the first unanswered probe to the verdict.
    pub verdict_after: Duration,
    /// Silence after which a peer whose kernel still acknowledges is given up; at or below
    /// `ping_interval + verdict_after` it makes no difference which of the two it is.
    pub frozen_after: Duration,
    /// Silence after which a peer that is known never to answer a ping is given up.
    pub idle_timeout: Duration,
    /// How long a peer may take no byte while bytes wait for it; `verdict_after` at least, since a byte under
    /// way has as much time as an answer.
    pub write_stall_after: Duration,
}

impl Limits {
    /// Returns the longest time from the last byte of a silent peer to its verdict.
    pub fn bound(&self) -> Duration {
        self.ping_interval + self.verdict_after
    }

    /// Returns after which time without progress a write is stalled.
    pub(crate) fn stall_after(&self) -> Duration {
        self.write_stall_after.max(self.verdict_after)
    }

    /// Returns after which time without an acknowledgement the kernel may give a connection up by itself: later
    /// than any verdict, which tells more.
    pub fn backstop(&self) -> Duration {
        let last = [self.bound(), self.frozen_after, self.idle_timeout, self.stall_after()].into_iter().max();
        last.unwrap_or_default() + self.bound() + self.verdict_after
    }

    /// Returns after how much silence a probe is due at the latest: so long before `ping_interval` has passed that
    /// the bound has room for our own scheduling. 2 % of it, at least 100 ms, at most a tenth.
    pub(crate) fn latest_probe(&self) -> Duration {
        let room = (self.ping_interval / 50).max(LATENESS_MIN).min(self.ping_interval / 10);
        self.ping_interval - room
    }

    /// Returns after how much silence a probe is due at the earliest, but for the very first: the last twelfth is for
    /// spreading them.
    pub(crate) fn earliest_probe(&self) -> Duration {
        let latest = self.latest_probe();
        latest - latest / 12
    }

    /// Returns the longest gap between two retransmissions that leaves a peer its chance to be heard after a
    /// stall of the network: a quarter of `verdict_after`, and 1 s at least (RFC 6298 section 2.4).
    pub fn retransmission_gap_max(&self) -> Duration {
        (self.verdict_after / 4).max(Duration::from_secs(1))
    }

    /// Returns how late a timer of ours may run before the silence may be our own fault: a tenth of
    /// `verdict_after`, at least 100 ms.
    pub(crate) fn lateness_max(&self) -> Duration {
        (self.verdict_after / 10).max(LATENESS_MIN)
    }
}
