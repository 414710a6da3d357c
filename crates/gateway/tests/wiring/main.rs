//! A whole gateway in this process, between real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a step that fails is a test that fails, whatever came instead; these tests measure real time"
)]

mod edges;
mod faults;
mod hold;
mod kit;
mod messages;
mod passing;
mod pressure;
mod v1;
mod v1_cuts;
mod v1_faults;
mod v1_herd;
mod v1_kit;
mod v1_levels;
mod v1_line;
mod v1_owners;
mod v1_stale;
mod verdicts;
