//! Many clients on bad lines, and a checker that judges what each side got and was told.
//!
//! [`run()`] starts a gateway, an app, clients and the lines between them; [`history::History`] is the checker, and
//! [`message::Name`] gives the messages that it can judge.

mod app;
mod client;
pub mod faults;
mod gateway;
pub mod history;
pub mod message;
mod plain;
pub mod receipts;
mod report;
mod run;
mod world;

use std::time::Instant;

pub use gateway::Holdings;
pub use plain::Unmodified;
pub use report::Report;
pub use run::{Plan, run};

/// One place reads the clock.
#[allow(clippy::disallowed_methods, reason = "the one place in the soak that reads the clock")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}
