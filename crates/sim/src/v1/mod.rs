//! Sessions of `pulsegate.v1` in virtual time: the client's machine, a faulty line, the session machine that production
//! runs, and an app that numbers what it says.

mod app;
mod bugs;
mod client;
mod driver;
mod faults;
mod gateway;
mod line;
mod oracle;
mod plan;
mod watch;
mod world;

use std::collections::BTreeMap;

pub use bugs::V1Bug;
pub use oracle::{Invariant, Objection};

/// What became of one world.
#[derive(Debug, Default)]
pub struct V1Report {
    /// The first objection, if there is one.
    pub objection: Option<Objection>,
    /// What happened, if it was asked for.
    pub story: Vec<String>,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs one world from its seed, with a bug planted or without.
pub fn run_v1(seed: u64, bug: Option<V1Bug>, story: bool) -> V1Report {
    world::World::new(seed, bug, story).run()
}
