//! What operators look at: metrics and health.

mod describe;
mod metrics;

pub(crate) use metrics::Metrics;
