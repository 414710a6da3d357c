//! What comes out of a run.

use std::collections::BTreeMap;

use crate::complaint::Failure;

/// What happened over one seed or many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often, by name.
    pub counts: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Tally) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
    }

    /// Returns how often `what` happened.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

/// The outcome of one seed.
#[derive(Debug)]
pub struct Report {
    /// What the oracle objects to, if it does.
    pub failure: Option<Failure>,
    /// The world and its events, if asked for.
    pub story: Vec<String>,
    /// What happened.
    pub tally: Tally,
}
