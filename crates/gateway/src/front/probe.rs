//! Does the app answer at all? For `/readyz`.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::upstream::Target;
use crate::shared::Shared;

/// A probe that takes longer is a no.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// So long an answer is good for everyone who asks.
const PROBE_TTL: Duration = Duration::from_secs(1);

/// The last probe and its result.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    // Held while one caller asks the app, so that the others wait for the same answer.
    last: Mutex<Option<(Instant, bool)>>,
}

/// Tells whether the app accepts TCP connections, asking it at most once a second.
///
/// # Cancel safety
/// Dropping the future drops a probe that has begun; the next caller starts another one.
pub(crate) async fn probe_upstream(shared: &Shared) -> bool {
    let mut last = shared.probe.last.lock().await;
    if let Some((asked, up)) = *last
        && asked.elapsed() < PROBE_TTL
    {
        return up;
    }
    let limit = shared.config.upstream.connect_timeout.min(PROBE_TIMEOUT);
    let up = match Target::parse(&shared.config.upstream.url) {
        Some(target) => matches!(timeout(limit, target.connect()).await, Ok(Ok(_))),
        None => false,
    };
    *last = Some((Instant::now(), up));
    shared.metrics.upstream_up(up);
    up
}
