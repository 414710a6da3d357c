//! The client's side of `pulsegate.v1` (PROTOCOL.md).
//!
//! A [`Machine`] is the protocol: no I/O, no clock. It outlives connections: what was sent and not acknowledged is sent
//! again on the next one. A [`Client`] drives it over tokio.

mod config;
mod driver;
mod event;
mod machine;

pub use config::ClientConfig;
pub use driver::{Client, Delivered, Delivery, DeliveryError, Payload, Sender, UrlError};
pub use event::{Event, Frame, SendError, Transmit};
pub use machine::Machine;
