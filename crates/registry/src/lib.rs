//! A session, and all sessions. No sockets.
//!
//! [`Session`] is the lifecycle machine that one driver task owns; [`Registry`] is the index that
//! everybody may read: who is there, since when, how well, and what became of those who left.

mod admission;
mod delivery;
mod entry;
mod events;
mod index;
mod parking;
mod remembered;
mod session;
mod tombstone;
mod v1;

pub use admission::{Admission, Permit, Refused};
pub use delivery::{Confirm, DeliveryNote, DeliveryRules, Message, Progress, Unsettled};
pub use entry::{Entry, LegGauge, LegView, Mode, SessionInfo, SessionState};
pub use events::{Event, EventRing, Replay};
pub use index::{Counts, Filter, Lookup, Page, Registry, RegistryLimits};
pub use parking::Parking;
pub use remembered::Remembered;
pub use session::{CloseCodes, Ending, Note, Order, Session, SessionLimits};
pub use tombstone::{Delivered, LegTotals, Tombstone};
pub use v1::{
    AppAck, Counters, Detached, Dial, Hello, LastWord, Parting, Refusal, ToApp, V1Limits, V1Note, V1Progress,
    V1Session, Write,
};
