//! What the event feed says: names, ids and data of its events. The stream itself is in `stream`.

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::response::sse;
use pulsegate_core::{Cause, Leg, Level, SessionId};
use pulsegate_heartbeat::Verdict;
use pulsegate_registry::Event;
use serde::Serialize;

use super::message_view::SettledView;
use super::view::{InfoView, TombstoneView, rfc3339, seconds};
use crate::feed::{Notice, What};

/// Said to a reader that missed events.
pub(super) const GAP: &str = "gap";

/// Every event that a reader can ask for by name.
pub(super) const NAMES: [&str; 13] = [
    "session.opened",
    "session.suspect",
    "session.recovered",
    "session.dead",
    "session.confirmed",
    "session.detached",
    "session.resumed",
    "session.app_detached",
    "session.app_resumed",
    "session.ended",
    "message.settled",
    "drain.started",
    "drain.finished",
];

#[derive(Serialize)]
struct EventView<'a> {
    r#type: &'static str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(flatten)]
    more: More<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum More<'a> {
    Opened(InfoView<'a>),
    Leg { leg: Leg },
    Dead { leg: Leg, cause: Cause, verdict: VerdictView<'a> },
    Confirmed { level: Level, messages: u64 },
    Detached { reason: &'a str },
    AppResumed { outage_seconds: f64, to_app_messages: u64 },
    Resumed { peer: SocketAddr, outage_seconds: f64, to_client_messages: u64 },
    Ended(Box<TombstoneView<'a>>),
    Settled(SettledView),
    Started { sessions: usize },
    Finished { left: usize },
    Gap { missed: Option<u64> },
}

#[derive(Serialize)]
struct VerdictView<'a> {
    text: String,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

/// The name of an event.
pub(super) fn name(what: &What) -> &'static str {
    match what {
        What::SessionOpened { .. } => "session.opened",
        What::SessionSuspect { .. } => "session.suspect",
        What::SessionRecovered { .. } => "session.recovered",
        What::SessionDead { .. } => "session.dead",
        What::SessionConfirmed { .. } => "session.confirmed",
        What::SessionDetached { .. } => "session.detached",
        What::SessionResumed { .. } => "session.resumed",
        What::SessionAppDetached { .. } => "session.app_detached",
        What::SessionAppResumed { .. } => "session.app_resumed",
        What::SessionEnded { .. } => "session.ended",
        What::MessageSettled { .. } => "message.settled",
        What::DrainStarted { .. } => "drain.started",
        What::DrainFinished { .. } => "drain.finished",
    }
}

/// The session that an event is about.
pub(super) fn session(what: &What) -> Option<SessionId> {
    match what {
        What::SessionOpened { id, .. }
        | What::SessionSuspect { id, .. }
        | What::SessionRecovered { id, .. }
        | What::SessionDead { id, .. }
        | What::SessionConfirmed { id, .. }
        | What::SessionDetached { id, .. }
        | What::SessionResumed { id, .. }
        | What::SessionAppDetached { id, .. }
        | What::SessionAppResumed { id, .. } => Some(*id),
        What::SessionEnded { tombstone } => Some(tombstone.id),
        What::MessageSettled { session, .. } => Some(*session),
        What::DrainStarted { .. } | What::DrainFinished { .. } => None,
    }
}

/// `<boot>-<sequence>`: unique over restarts.
pub(super) fn event_id(boot: u64, sequence: u64) -> String {
    format!("{boot}-{sequence}")
}

/// Reads an id back: boot and sequence.
pub(super) fn parse_id(text: &str) -> Option<(u64, u64)> {
    let (boot, sequence) = text.split_once('-')?;
    Some((boot.parse().ok()?, sequence.parse().ok()?))
}

/// An event as it goes to a reader.
pub(super) fn event(boot: u64, event: &Event<Notice>) -> sse::Event {
    let what = &event.what.what;
    let more = match what {
        What::SessionOpened { info, .. } => More::Opened(info.as_ref().into()),
        What::SessionSuspect { leg, .. } | What::SessionRecovered { leg, .. } => More::Leg { leg: *leg },
        What::SessionDead { leg, verdict, .. } => More::Dead {
            leg: *leg,
            cause: verdict.cause,
            verdict: VerdictView { text: verdict.to_string(), verdict },
        },
        What::SessionConfirmed { level, messages, .. } => {
            More::Confirmed { level: *level, messages: *messages }
        }
        What::SessionDetached { why, .. } => More::Detached { reason: why },
        What::SessionAppDetached { why, .. } => More::Detached { reason: why },
        What::SessionAppResumed { outage, again, .. } => {
            More::AppResumed { outage_seconds: seconds(*outage), to_app_messages: *again }
        }
        What::SessionResumed { peer, outage, to_client, .. } => {
            More::Resumed { peer: *peer, outage_seconds: seconds(*outage), to_client_messages: *to_client }
        }
        What::SessionEnded { tombstone } => More::Ended(Box::new(tombstone.as_ref().into())),
        What::MessageSettled { id, requested, outcome, elapsed, .. } => {
            More::Settled(SettledView::new(*id, *requested, *outcome, *elapsed))
        }
        What::DrainStarted { sessions } => More::Started { sessions: *sessions },
        What::DrainFinished { left } => More::Finished { left: *left },
    };
    let view = EventView { r#type: name(what), at: rfc3339(event.what.at), session: session(what), more };
    sse::Event::default().id(event_id(boot, event.sequence)).event(view.r#type).data(json(&view))
}

/// Tells a reader that events are lost to it; `None`: nobody knows how many.
pub(super) fn gap(missed: Option<u64>) -> sse::Event {
    let at = rfc3339(SystemTime::now());
    let view = EventView { r#type: GAP, at, session: None, more: More::Gap { missed } };
    sse::Event::default().event(GAP).data(json(&view))
}

fn json(view: &EventView<'_>) -> String {
    serde_json::to_string(view).expect("all keys are text")
}
