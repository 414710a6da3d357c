//! What operators look at: metrics and health.

mod delivery;
mod describe;
mod http;
mod metrics;

pub(crate) use http::serve;
pub(crate) use metrics::Metrics;
