//! What operators look at: metrics and health.

mod delivery;
mod describe;
mod http;
mod metrics;
mod v1;

pub(crate) use http::serve;
pub(crate) use metrics::Metrics;
