//! `/v1/events`: the feed as server-sent events.
//!
//! A reader is a place in the ring of events. It takes a few at a time and only when its connection has
//! room, so a slow one costs nothing but its own place: if the ring moves on past it, it is told how many
//! it missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use pulsegate_core::SessionId;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Api;
use super::events::{NAMES, event, event_id, gap, name, parse_id, session};
use super::query::Params;
use crate::feed::What;
use crate::problem::Problem;
use crate::shared::Shared;

/// Events taken from the ring at once.
const BATCH_MAX: usize = 32;

/// A comment is sent after so long without an event, so that both ends and every proxy between them see
/// that the feed lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a browser waits before it comes back.
const RETRY: Duration = Duration::from_secs(1);

/// When to try again for a place.
const RETRY_AFTER_S: u32 = 5;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Asks nginx not to collect events before it passes them on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET /v1/events`
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::of(&uri)?;
    let wanted = Wanted {
        session: params.take("session", str::parse)?,
        names: params.take("type", names)?.unwrap_or_default(),
        follow: params.take("follow", str::parse::<bool>)?.unwrap_or(true),
    };
    let asked = params.take("last_event_id", |id| Ok::<_, Infallible>(id.to_owned()))?;
    params.finish()?;
    // The header is what a browser sends when it comes back, so it is the later word.
    let last = headers.get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let Ok(place) = Arc::clone(&api.feeds).try_acquire_owned() else {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "feeds-max", "Too many event feeds");
        return Err(problem.detail("all control.feeds_max feeds are open").retry_after(RETRY_AFTER_S));
    };
    let reader = Reader::new(&api, wanted, last.or(asked), place);
    let events = stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Which events a reader asked for.
struct Wanted {
    session: Option<SessionId>,
    /// Empty: all.
    names: Vec<&'static str>,
    /// Whether to wait for what is yet to happen.
    follow: bool,
}

impl Wanted {
    fn has(&self, what: &What) -> bool {
        self.session.is_none_or(|wanted| session(what) == Some(wanted))
            && (self.names.is_empty() || self.names.contains(&name(what)))
    }
}

struct Reader {
    shared: Arc<Shared>,
    finish: CancellationToken,
    last: watch::Receiver<u64>,
    wanted: Wanted,
    /// Number of the last event that was looked at.
    position: u64,
    /// Number that the client knows as the last one.
    told: u64,
    queue: VecDeque<Event>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn new(api: &Api, wanted: Wanted, resume: Option<String>, place: OwnedSemaphorePermit) -> Reader {
        let last = api.shared.feed.follow();
        let now = *last.borrow();
        let boot = api.shared.feed.boot();
        let mut queue = VecDeque::new();
        // The number before the oldest event that is kept.
        let oldest = api.shared.feed.since(0, 0).missed;
        let position = match resume.as_deref().map(parse_id) {
            None if wanted.follow => now,
            None => oldest,
            Some(Some((of, sequence))) if of == boot => sequence.min(now),
            // From another run of the gateway, or no id of ours at all: what is kept is all there is to give.
            Some(Some(_) | None) => {
                queue.push_back(gap(None));
                oldest
            }
        };
        // A client that loses its connection before the first event still knows where it was.
        let hello = Event::default().id(event_id(boot, position)).retry(RETRY).comment("pulsegate events");
        queue.push_front(hello);
        Reader {
            shared: Arc::clone(&api.shared),
            finish: api.finish.clone(),
            last,
            wanted,
            position,
            told: position,
            queue,
            _place: place,
        }
    }

    /// Returns the next event, comments included; `None` when the gateway has finished, or all that is kept
    /// was sent and the reader does not follow.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            // Marked as seen before the ring is read: an event that comes in between wakes us again.
            self.last.borrow_and_update();
            if self.read() {
                continue;
            }
            if self.finish.is_cancelled() || !self.wanted.follow {
                return None;
            }
            tokio::select! {
                changed = self.last.changed() => changed.ok()?,
                () = self.finish.cancelled() => {}
                () = sleep(KEEP_ALIVE) => return Some(self.keep_alive()),
            }
        }
    }

    /// Takes a batch from the ring; returns whether there was anything.
    fn read(&mut self) -> bool {
        let boot = self.shared.feed.boot();
        let replay = self.shared.feed.since(self.position, BATCH_MAX);
        if replay.missed > 0 {
            self.queue.push_back(gap(Some(replay.missed)));
        }
        for one in &replay.events {
            self.position = one.sequence;
            if self.wanted.has(&one.what.what) {
                self.told = one.sequence;
                self.queue.push_back(event(boot, one));
            }
        }
        !replay.events.is_empty()
    }

    /// A comment; with an id when events passed by that the client did not ask for, or it would one day
    /// come back with a number that the ring has long forgotten.
    fn keep_alive(&mut self) -> Event {
        let comment = Event::default().comment("keep-alive");
        if self.told == self.position {
            return comment;
        }
        self.told = self.position;
        comment.id(event_id(self.shared.feed.boot(), self.position))
    }
}

fn names(text: &str) -> Result<Vec<&'static str>, String> {
    let known = |asked: &str| NAMES.into_iter().find(|name| *name == asked);
    text.split(',')
        .map(|asked| known(asked).ok_or_else(|| format!("one or more of {} are expected", NAMES.join(","))))
        .collect()
}
