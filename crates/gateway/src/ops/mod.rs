//! What operators look at: metrics and health.

mod describe;
mod http;
mod metrics;

pub(crate) use http::serve;
pub(crate) use metrics::Metrics;
