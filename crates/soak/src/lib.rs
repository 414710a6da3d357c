//! Many clients on bad lines, and a checker that judges what each side got and was told.
//!
//! [`history::History`] is the checker; [`message::Name`] gives the messages that it can judge.

pub mod history;
pub mod message;
