//! Bugs to plant between the driver and the machine: the oracle must catch each.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The machine waits an eighth longer than told to.
    BoundLong,
    /// The machine waits an eighth less than told to.
    BoundShort,
    /// One read in four is not told as life.
    MissedReset,
    /// What we write counts as life of the peer.
    OutboundIsLife,
    /// The machine takes every timer for punctual.
    NoLateBrake,
    /// No session knows of the others.
    NoCrowdBrake,
    /// Writes are not told, so nobody asks for the kernel's view of what is in flight.
    NoInFlightLook,
    /// A peer that we do not read is not known as such.
    NoBackPressure,
    /// Timers are handled before what waits in the sockets is read.
    TimersBeforeReads,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 9] = [
        Bug::BoundLong,
        Bug::BoundShort,
        Bug::MissedReset,
        Bug::OutboundIsLife,
        Bug::NoLateBrake,
        Bug::NoCrowdBrake,
        Bug::NoInFlightLook,
        Bug::NoBackPressure,
        Bug::TimersBeforeReads,
    ];
}
