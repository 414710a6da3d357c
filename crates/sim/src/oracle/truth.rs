//! What the oracle keeps of one connection, beside what is in its kernels.

use crate::Time;
use crate::oracle::SMALL;

/// What is known of one connection beside what is in its kernels.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    /// When we last read something.
    pub(super) read_at: Time,
    /// When our socket last took something.
    pub(crate) taken_at: Time,
    /// When our socket took the first probe of this silence.
    pub(super) probed_at: Option<Time>,
    pub(super) paused_since: Option<Time>,
    /// Time since the last arrival in which we did not read, and whether bytes waited for the peer.
    pub(super) paused: Time,
    pub(crate) queued: bool,
    /// When the first bytes were written that never arrive.
    pub(crate) lost_write_at: Option<Time>,
    pub(super) suspected: bool,
    pub(super) withheld_open: u32,
    /// Within this silence.
    pub(super) withheld: u32,
    pub(super) withheld_mass: u32,
    /// When verdicts were withheld.
    pub(super) withheld_at: Vec<Time>,
    pub(super) dead: bool,
}

impl Truth {
    pub(crate) fn new(now: Time) -> Truth {
        Truth {
            read_at: now,
            taken_at: now,
            probed_at: None,
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

    /// The socket took the end of a probe, behind `unacked` bytes that are on their way.
    pub(crate) fn note_probe(&mut self, unacked: u64, now: Time) {
        // What the first of a silence has before it; the others have the first before them.
        self.queued |= unacked > if self.probed_at.is_none() { 0 } else { SMALL };
        self.probed_at.get_or_insert(now);
    }

    pub(crate) fn note_arrival(&mut self) {
        (self.withheld, self.withheld_mass) = (0, 0);
    }

    pub(crate) fn note_read(&mut self, now: Time) {
        self.read_at = now;
        self.paused = 0;
        self.probed_at = None;
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
