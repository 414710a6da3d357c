//! Our own machine: when it runs, and what its monotonic clock says. There is no wall clock: nothing in a
//! session reads one, so a step of it is no input.

use crate::{NEVER, Time};

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The process only: our kernel goes on acknowledging and keeping what comes.
    Process,
    /// The whole machine, as when a hypervisor pauses it; its monotonic clock jumps ahead.
    Machine,
    /// The whole machine and its monotonic clock.
    Suspend,
}

/// Our own part in what goes wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    /// In order, without overlap.
    pub(crate) halts: Vec<(Time, Time, Halt)>,
    /// Every timer fires so much late.
    pub(crate) lateness: Time,
    /// So long after a socket became ready the driver runs.
    pub(crate) reaction: Time,
}

impl Own {
    /// Returns when the process runs, at `time` or after it.
    pub(crate) fn process_runs_at(&self, time: Time) -> Time {
        self.halts.iter().find(|halt| halt.0 <= time && time < halt.1).map_or(time, |halt| halt.1)
    }

    /// Returns when our kernel runs, at `time` or after it.
    pub(crate) fn kernel_runs_at(&self, time: Time) -> Time {
        let halt = self.halts.iter().find(|halt| halt.2 != Halt::Process && halt.0 <= time && time < halt.1);
        halt.map_or(time, |halt| halt.1)
    }

    /// Returns the monotonic clock.
    pub(crate) fn clock(&self, time: Time) -> Time {
        let suspended = self.halts.iter().filter(|halt| halt.2 == Halt::Suspend && halt.0 < time);
        time - suspended.map(|halt| halt.1.min(time) - halt.0).sum::<Time>()
    }

    /// Returns how long nothing ran between `from` and `to`, though the clock went on.
    pub(crate) fn halted(&self, from: Time, to: Time) -> Time {
        let halts = self.halts.iter().filter(|halt| halt.2 != Halt::Suspend);
        halts.map(|halt| halt.1.min(to).saturating_sub(halt.0.max(from))).sum()
    }

    /// Returns how long no packet was taken between `from` and `to`.
    pub(crate) fn deaf(&self, from: Time, to: Time) -> Time {
        let halts = self.halts.iter().filter(|halt| halt.2 != Halt::Process);
        halts.map(|halt| halt.1.min(to.min(NEVER)).saturating_sub(halt.0.max(from))).sum()
    }
}
