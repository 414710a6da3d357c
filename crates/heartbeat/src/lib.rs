//! Is the peer alive: round-trip estimator and failure detector. No I/O, no clock, no async.
//!
//! One [`Detector`] watches one leg. It is told what arrives and when, and says when to probe, when to
//! suspect and when to give up; a [`Verdict`] carries the evidence it fell on.

mod detector;
mod doubt;
mod limits;
mod rtt;
mod verdict;

pub use detector::{Detector, Event, Pong, PongHabit, ProbeId};
pub use doubt::{Crowd, Doubt, Doubts, Member};
pub use limits::Limits;
pub use rtt::RoundTrip;
pub use verdict::{Evidence, KernelView, Look, Verdict};
