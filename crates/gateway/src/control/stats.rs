//! `/v1/stats`: the gateway at a glance, for a dashboard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use serde::Serialize;

use super::Api;
use super::events::event_id;
use super::query::Params;
use super::view::{rfc3339, seconds};
use crate::config::{Bounds, show_duration};
use crate::problem::Problem;
use crate::shared::clock;

#[derive(Serialize)]
struct StatsView {
    version: &'static str,
    started_at: String,
    uptime_seconds: f64,
    draining: bool,
    sessions: SessionsView,
    totals: Totals,
    liveness: LivenessView,
    events: EventsView,
}

#[derive(Serialize)]
struct SessionsView {
    live: usize,
    suspect: usize,
    detached: usize,
    /// Places taken, handshakes under way included.
    admitted: usize,
    max: usize,
    /// Ended ones that are remembered.
    remembered: usize,
}

/// Since the start.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Totals {
    opened: u64,
    ended: BTreeMap<String, u64>,
    dead_peers: PerLeg<BTreeMap<String, u64>>,
    suspects: PerLeg<u64>,
    suspects_recovered: PerLeg<u64>,
    messages: PerDirection,
    message_bytes: PerDirection,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct PerLeg<T> {
    client: T,
    app: T,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct PerDirection {
    to_app: u64,
    to_client: u64,
}

#[derive(Serialize)]
struct LivenessView {
    profile: &'static str,
    ping_interval_seconds: f64,
    verdict_after_seconds: f64,
    silence_max_seconds: f64,
    text: String,
}

#[derive(Serialize)]
struct EventsView {
    last: String,
    feeds: usize,
    feeds_max: usize,
}

/// `GET /v1/stats`
pub(super) async fn stats(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri)?.finish()?;
    let shared = &api.shared;
    let counts = shared.registry.counts();
    let uptime = clock().saturating_duration_since(shared.started);
    let bounds = shared.config.liveness.bounds();
    let feeds_max = shared.config.control.feeds_max;
    let view = StatsView {
        version: env!("CARGO_PKG_VERSION"),
        started_at: rfc3339(SystemTime::now().checked_sub(uptime).unwrap_or(SystemTime::UNIX_EPOCH)),
        uptime_seconds: seconds(uptime),
        draining: shared.stop.is_cancelled(),
        sessions: SessionsView {
            live: counts.live,
            suspect: counts.suspect,
            detached: counts.detached,
            admitted: counts.admitted,
            max: shared.config.limits.sessions_max,
            remembered: counts.tombstones,
        },
        totals: Totals::of(&shared.metrics.render(&counts)),
        liveness: LivenessView {
            profile: shared.config.liveness.profile.name(),
            ping_interval_seconds: seconds(bounds.ping_interval),
            verdict_after_seconds: seconds(bounds.verdict_after),
            silence_max_seconds: seconds(bounds.silence_max()),
            text: in_words(&bounds),
        },
        events: EventsView {
            last: event_id(shared.feed.boot(), *shared.feed.follow().borrow()),
            feeds: feeds_max.saturating_sub(api.feeds.available_permits()),
            feeds_max,
        },
    };
    Ok(Json(view).into_response())
}

impl Totals {
    /// Reads them from the metrics' own text, so that both can never tell different stories.
    fn of(metrics: &str) -> Totals {
        let mut totals = Totals::default();
        for (name, labels, value) in metrics.lines().filter_map(sample) {
            totals.take(name, &labels, value);
        }
        totals
    }

    fn take(&mut self, name: &str, labels: &BTreeMap<&str, &str>, value: u64) {
        let label = |name: &str| labels.get(name).copied().unwrap_or_default();
        match name {
            "sessions_opened_total" => self.opened += value,
            "sessions_ended_total" => drop(self.ended.insert(label("reason").into(), value)),
            "dead_peers_total" => {
                if let Some(causes) = self.dead_peers.of(label("leg")) {
                    causes.insert(label("cause").into(), value);
                }
            }
            "suspects_total" => self.suspects.set(label("leg"), value),
            "suspects_recovered_total" => self.suspects_recovered.set(label("leg"), value),
            "messages_total" => self.messages.set(label("direction"), value),
            "message_bytes_total" => self.message_bytes.set(label("direction"), value),
            _ => {}
        }
    }
}

impl<T> PerLeg<T> {
    fn of(&mut self, leg: &str) -> Option<&mut T> {
        match leg {
            "client" => Some(&mut self.client),
            "app" => Some(&mut self.app),
            _ => None,
        }
    }

    fn set(&mut self, leg: &str, value: T) {
        if let Some(place) = self.of(leg) {
            *place = value;
        }
    }
}

impl PerDirection {
    fn set(&mut self, direction: &str, value: u64) {
        match direction {
            "to_app" => self.to_app = value,
            "to_client" => self.to_client = value,
            _ => {}
        }
    }
}

/// Reads `pulsegate_name{label="value",…} 7`, without the prefix. Label values of these metrics come from
/// closed sets: no quote, comma or backslash is in any.
fn sample(line: &str) -> Option<(&str, BTreeMap<&str, &str>, u64)> {
    let (series, value) = line.strip_prefix("pulsegate_")?.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}')?.split(',').filter_map(|label| label.split_once('='));
    let labels = labels.map(|(name, value)| (name, value.trim_matches('"'))).collect();
    Some((name, labels, value.parse().ok()?))
}

/// The promise as a sentence.
fn in_words(bounds: &Bounds) -> String {
    let silence_max = show_duration(bounds.silence_max());
    let frozen = |limit: Duration| {
        if limit == bounds.silence_max() {
            String::new()
        } else {
            format!(" (one whose kernel still acknowledges: {})", show_duration(limit))
        }
    };
    format!(
        "a silent client is declared dead within {silence_max}{}, a silent app within {silence_max}{}",
        frozen(bounds.client_frozen_after),
        frozen(bounds.app_frozen_after),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::ops::Metrics;
    use pulsegate_core::{Cause, EndReason, Leg};
    use pulsegate_heartbeat::Doubts;
    use pulsegate_registry::Mode;

    #[test]
    fn totals_are_those_of_the_metrics() {
        let metrics = Metrics::new();
        metrics.session_opened(Mode::Plain);
        metrics.session_opened(Mode::Plain);
        metrics.session_ended(EndReason::WriteStalled, Duration::from_secs(1));
        metrics.leg(Leg::App).dead_peer(Cause::Frozen, Duration::from_secs(1), Doubts::default());
        metrics.leg(Leg::Client).suspects.increment(3);
        metrics.leg(Leg::Client).messages.increment(5);
        metrics.leg(Leg::App).message_bytes.increment(7);
        let totals = Totals::of(&metrics.render(&Default::default()));
        assert_eq!(totals.opened, 2);
        assert_eq!(totals.ended.len(), EndReason::ALL.len());
        assert_eq!((totals.ended["write_stalled"], totals.ended["closed"]), (1, 0));
        assert_eq!((totals.dead_peers.app["frozen"], totals.dead_peers.client["frozen"]), (1, 0));
        assert_eq!(totals.suspects, PerLeg { client: 3, app: 0 });
        assert_eq!(totals.messages, PerDirection { to_app: 5, to_client: 0 });
        assert_eq!(totals.message_bytes, PerDirection { to_app: 0, to_client: 7 });
    }

    #[test]
    fn the_bound_is_a_sentence() {
        assert_eq!(
            in_words(&Config::default().liveness.bounds()),
            "a silent client is declared dead within 10s, a silent app within 10s (one whose kernel still \
             acknowledges: 30s)"
        );
    }
}
