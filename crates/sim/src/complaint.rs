//! What the oracle can object to.

use std::fmt;

/// A kind of objection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Complaint {
    /// A verdict, or a suspicion, that the peer did not deserve: safety.
    Unjust,
    /// A peer that is gone and lives on: completeness.
    Overdue,
    /// The verdict is due, and says the wrong thing of how the peer died.
    WrongCause,
    /// The verdict tells something that was not so.
    FalseProof,
    /// Notes that can't follow each other, or a doubt without a reason.
    Disorder,
}

impl Complaint {
    /// Returns the words for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Complaint::Unjust => "unjust",
            Complaint::Overdue => "overdue",
            Complaint::WrongCause => "wrong cause",
            Complaint::FalseProof => "false proof",
            Complaint::Disorder => "disorder",
        }
    }
}

/// The first objection to a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// Of which kind.
    pub complaint: Complaint,
    /// What is wrong.
    pub what: &'static str,
    /// Who, when, and the verdict or the figures.
    pub details: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.complaint.as_str(), self.what, self.details)
    }
}
