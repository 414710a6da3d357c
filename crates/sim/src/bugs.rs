//! Bugs to plant between the driver and the machine: the oracle must catch each, and for the right reason.

use clap::ValueEnum;

use crate::complaint::Complaint;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Bug {
    /// The machine waits an eighth longer than told to.
    BoundLong,
    /// The machine waits an eighth less than told to.
    BoundShort,
    /// One read in four is not told as life; what is told of a silence stays true.
    MissedReset,
    /// What we write counts as life of the peer.
    OutboundIsLife,
    /// The machine takes every timer for punctual; what it tells of a silence stays true.
    NoLateBrake,
    /// No session knows of the others.
    NoCrowdBrake,
    /// Until a silence was probed the kernel's view tells of nothing in flight.
    NoInFlightLook,
    /// A peer that we do not read is not known as such.
    NoBackPressure,
    /// Timers are handled before what waits in the sockets is read.
    TimersBeforeReads,
    /// The kernel's view says that an acknowledgement came just now, and that nothing was sent again.
    BlindView,
    /// The verdict tells a silence that is a tenth too long.
    WrongProof,
    /// Nobody is told that a suspect was heard again.
    LostNote,
}

impl Bug {
    /// Returns all of them.
    pub fn all() -> &'static [Bug] {
        Bug::value_variants()
    }

    /// Returns what the oracle has to complain of.
    pub fn complaint(self) -> Complaint {
        match self {
            Bug::BoundShort
            | Bug::MissedReset
            | Bug::NoLateBrake
            | Bug::NoCrowdBrake
            | Bug::NoBackPressure
            | Bug::TimersBeforeReads => Complaint::Unjust,
            Bug::BoundLong | Bug::OutboundIsLife | Bug::NoInFlightLook => Complaint::Overdue,
            Bug::BlindView => Complaint::WrongCause,
            Bug::WrongProof => Complaint::FalseProof,
            Bug::LostNote => Complaint::Disorder,
        }
    }
}
