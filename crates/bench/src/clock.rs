//! One clock for all processes of a measurement, and the one that counts a thread's work.

use rustix::time::{ClockId, clock_gettime};

/// A moment in nanoseconds of one clock; only moments of the same one can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(i64);

impl Moment {
    /// Reads the machine's monotonic clock, the same in every process.
    pub(crate) fn now() -> Moment {
        Moment::of(ClockId::Monotonic)
    }

    /// Reads the processor time of this thread.
    pub(crate) fn of_thread() -> Moment {
        Moment::of(ClockId::ThreadCPUTime)
    }

    fn of(clock: ClockId) -> Moment {
        let time = clock_gettime(clock);
        Moment(time.tv_sec * 1_000_000_000 + time.tv_nsec)
    }

    /// Returns the seconds from `earlier` to this moment; negative when it is later.
    pub(crate) fn seconds_since(self, earlier: Moment) -> f64 {
        (self.0 - earlier.0) as f64 / 1e9
    }
}
