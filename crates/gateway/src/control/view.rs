//! Sessions as the control API shows them. The shapes are promises: `docs/openapi.json` describes them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use pulsegate_core::{CloseFrame, EndReason, Leg, SessionId};
use pulsegate_registry::{Delivered, Entry, LegTotals, LegView, Progress, SessionInfo, Tombstone};
use serde::{Serialize, Serializer};

/// A session that lasts.
#[derive(Serialize)]
pub(super) struct SessionView<'a> {
    id: SessionId,
    state: &'static str,
    #[serde(flatten)]
    info: InfoView<'a>,
    opened_at: String,
    age_seconds: f64,
    legs: Legs<LiveLeg>,
    delivery: DeliveryView,
}

/// What its handshake told.
#[derive(Serialize)]
pub(super) struct InfoView<'a> {
    mode: &'static str,
    peer: SocketAddr,
    client: IpAddr,
    path: &'a str,
    origin: Option<&'a str>,
    subprotocol: Option<&'a str>,
    request_id: &'a str,
    #[serde(serialize_with = "labels")]
    labels: &'a [(Box<str>, Box<str>)],
}

/// A session that ended.
#[derive(Serialize)]
pub(super) struct TombstoneView<'a> {
    id: SessionId,
    reason: EndReason,
    leg: Option<Leg>,
    detail: Option<&'static str>,
    verdict: Option<&'a str>,
    close: Option<CloseView<'a>>,
    #[serde(flatten)]
    info: InfoView<'a>,
    opened_at: String,
    ended_at: String,
    duration_seconds: f64,
    legs: Legs<EndedLeg>,
    delivered: DeliveredView,
}

/// How far the messages to the client have come: as many of the first of them as are known to.
#[derive(Serialize)]
struct DeliveredView {
    sent: u64,
    kernel: u64,
    received: u64,
}

/// The same while the session lasts.
#[derive(Serialize)]
struct DeliveryView {
    #[serde(flatten)]
    delivered: DeliveredView,
    unacked_messages: u64,
    unacked_bytes: u64,
    oldest_unacked_seconds: Option<f64>,
}

#[derive(Serialize)]
struct CloseView<'a> {
    code: u16,
    reason: &'a str,
}

#[derive(Serialize)]
struct Legs<T> {
    client: T,
    app: T,
}

#[derive(Serialize)]
struct LiveLeg {
    state: &'static str,
    silent_for_seconds: f64,
    round_trip_seconds: Option<f64>,
    probes_unanswered: u32,
    pong: &'static str,
    messages: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct EndedLeg {
    messages: u64,
    bytes: u64,
    round_trip_seconds: Option<f64>,
}

impl<'a> SessionView<'a> {
    pub(super) fn new<H>(entry: &'a Entry<H>, now: Instant) -> SessionView<'a> {
        SessionView {
            id: entry.id(),
            state: entry.state().as_str(),
            info: (&**entry.info()).into(),
            opened_at: rfc3339(entry.opened_wall()),
            age_seconds: seconds(entry.age(now)),
            legs: Legs { client: entry.view(Leg::Client, now).into(), app: entry.view(Leg::App, now).into() },
            delivery: DeliveryView::new(entry.progress(), now),
        }
    }
}

impl<'a> From<&'a SessionInfo> for InfoView<'a> {
    fn from(info: &'a SessionInfo) -> InfoView<'a> {
        InfoView {
            mode: info.mode.as_str(),
            peer: info.peer,
            client: info.client,
            path: &info.path,
            origin: info.origin.as_deref(),
            subprotocol: info.subprotocol.as_deref(),
            request_id: &info.request_id,
            labels: &info.labels,
        }
    }
}

impl<'a> From<&'a Tombstone> for TombstoneView<'a> {
    fn from(tombstone: &'a Tombstone) -> TombstoneView<'a> {
        let ending = &tombstone.ending;
        let [client, app] = tombstone.legs;
        TombstoneView {
            id: tombstone.id,
            reason: ending.reason,
            leg: ending.leg,
            detail: ending.detail,
            verdict: ending.verdict.as_deref(),
            close: ending.close.as_ref().map(|CloseFrame { code, reason }| CloseView { code: *code, reason }),
            info: (&*tombstone.info).into(),
            opened_at: rfc3339(tombstone.opened_at),
            ended_at: rfc3339(tombstone.ended_at),
            duration_seconds: seconds(tombstone.duration),
            legs: Legs { client: client.into(), app: app.into() },
            delivered: tombstone.delivered.into(),
        }
    }
}

impl DeliveryView {
    fn new(progress: Progress, now: Instant) -> DeliveryView {
        let Progress { sent, kernel, received, open } = progress;
        DeliveryView {
            delivered: DeliveredView { sent, kernel, received },
            unacked_messages: open.messages,
            unacked_bytes: open.bytes,
            oldest_unacked_seconds: open.since.map(|since| seconds(now.saturating_duration_since(since))),
        }
    }
}

impl From<Delivered> for DeliveredView {
    fn from(Delivered { sent, kernel, received }: Delivered) -> DeliveredView {
        DeliveredView { sent, kernel, received }
    }
}

impl From<LegView> for LiveLeg {
    fn from(view: LegView) -> LiveLeg {
        LiveLeg {
            state: view.state.as_str(),
            silent_for_seconds: seconds(view.silent_for),
            round_trip_seconds: view.round_trip.map(seconds),
            probes_unanswered: view.probes_unanswered,
            pong: view.pong.as_str(),
            messages: view.messages,
            bytes: view.bytes,
        }
    }
}

impl From<LegTotals> for EndedLeg {
    fn from(totals: LegTotals) -> EndedLeg {
        EndedLeg {
            messages: totals.messages,
            bytes: totals.bytes,
            round_trip_seconds: totals.round_trip.map(seconds),
        }
    }
}

/// RFC 3339 with milliseconds, in UTC.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Seconds, to the microsecond.
pub(super) fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

fn labels<S: Serializer>(labels: &&[(Box<str>, Box<str>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(name, value)| (name, value)))
}
