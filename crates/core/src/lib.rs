//! The words of pulsegate: ids, frame heads, close codes, reasons. No I/O, no clock, no async.
//!
//! Everything here is a value or a small machine over bytes; time comes in as an argument, and nothing
//! allocates per frame that is passed on as it is.

mod backoff;
mod close;
mod delivery;
mod frame;
mod id;
mod pace;
mod reason;
pub mod v1;

pub use backoff::Backoff;
pub use close::{CloseFrame, CloseFrameError};
pub use delivery::{Level, Outcome, Sent};
pub use frame::{
    Direction, FrameLimits, FrameReader, Head, Opcode, ReservedBits, Step, Violation, write_control,
    write_message,
};
pub use id::{IdSource, MessageId, SessionId};
pub use pace::{ControlBudget, FrameClock};
pub use reason::{Cause, EndReason, Leg};
