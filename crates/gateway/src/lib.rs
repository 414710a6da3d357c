//! Sockets, tasks, the clock: the gateway itself. The machines it drives live in the crates below it.

pub mod cli;
pub mod config;
mod control;
mod demo;
mod drain;
mod feed;
mod front;
#[doc(hidden)]
pub mod fuzz;
mod http_serve;
mod ops;
mod problem;
mod relay;
pub mod serve;
mod shared;
mod sys;
