//! Deterministic simulation: real [`pulsegate_registry::Session`]s in virtual time, from a seed, against a model
//! of peers, TCP connections and our own machine, with an oracle that knows what really happened.

mod bugs;
mod complaint;
mod driver;
mod link;
mod oracle;
mod own;
mod peer;
mod plan;
mod queue;
mod report;
mod v1;
mod world;

pub use bugs::Bug;
pub use complaint::{Complaint, Failure};
pub use peer::Kind;
pub use report::{Report, Tally};
pub use v1::{Invariant, Objection, V1Bug, V1Report, run_v1};
pub use world::run;

/// Microseconds of world time.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000_000;
/// Later than any end of a run.
pub(crate) const NEVER: Time = Time::MAX / 4;
