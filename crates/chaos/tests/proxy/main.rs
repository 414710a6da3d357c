//! The fault proxy over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test, a panic and what it printed are the report"
)]

mod bench;
mod ends;
mod freeze;
mod scope;
mod shape;
