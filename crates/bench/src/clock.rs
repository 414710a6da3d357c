//! One clock for all processes of a measurement.

use rustix::time::{ClockId, clock_gettime};

/// A moment in nanoseconds of the machine's monotonic clock, the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(i64);

impl Moment {
    /// Reads the clock.
    pub(crate) fn now() -> Moment {
        let time = clock_gettime(ClockId::Monotonic);
        Moment(time.tv_sec * 1_000_000_000 + time.tv_nsec)
    }

    /// Returns the seconds from `earlier` to this moment; negative when it is later.
    pub(crate) fn seconds_since(self, earlier: Moment) -> f64 {
        (self.0 - earlier.0) as f64 / 1e9
    }
}
