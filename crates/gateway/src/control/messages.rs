//! `/v1/messages`, and messages to one session: send, wait for the outcome, ask for it later.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use http_body_util::LengthLimitError;
use pulsegate_core::{Level, MessageId, Outcome, Sent, SessionId};
use pulsegate_registry::{Entry, Filter, Lookup, Message, Mode};
use serde_json::json;
use tokio::time::timeout;

use super::Api;
use super::message_headers::{Wishes, read_kind};
use super::message_view::MessageView;
use super::query::{Params, invalid};
use super::sessions::{Id, ended, find, session_id, state, unknown};
use crate::messages::{Claim, Claimed, Draft, Record, Status};
use crate::problem::Problem;
use crate::relay::{Mailbox, Refusal, Room};
use crate::shared::{Shared, clock};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// When another try makes sense for a session that has no room, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// What is to be sent.
struct Content {
    text: bool,
    payload: Bytes,
}

/// `POST /v1/sessions/{id}/messages`
pub(super) async fn send(State(api): State<Arc<Api>>, id: Id, request: Request) -> Result<Response, Problem> {
    Params::of(request.uri())?.finish()?;
    let shared = &api.shared;
    let wishes = Wishes::of(request.headers(), &shared.config.delivery)?;
    let content = read(shared, request).await?;
    let claimed = match claim(shared, session_id(&id), &wishes, &content)? {
        Some(claimed) => claimed,
        None => {
            let entry = find(&api, id)?;
            accept(shared, &entry, &wishes, &content)?
        }
    };
    // Without a place for it the wish is passed over, as RFC 7240 section 2 allows.
    let place = wishes.wait.and_then(|wait| Some((wait, api.waits.try_acquire().ok()?)));
    if let Some((wait, _)) = place {
        // Whether it is settled or not is told either way.
        let _ = timeout(wait, claimed.settled()).await;
    }
    let mut response = answer(claimed.record())?;
    if let Some((wait, _)) = place {
        let applied = format!("wait={}", wait.as_secs());
        let value = HeaderValue::from_str(&applied).expect("digits are visible");
        response.headers_mut().insert(PREFERENCE_APPLIED, value);
    }
    Ok(response)
}

/// `POST /v1/messages`: the same message to all sessions with the given labels. Nobody waits.
pub(super) async fn send_to_many(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let shared = &api.shared;
    let mut params = Params::of(request.uri())?;
    let filter = Filter { state: params.take("state", state)?, labels: params.take_all("label.")? };
    let all = params.take("all", |text| text.parse::<bool>())?.unwrap_or(false);
    params.finish()?;
    if filter.labels.is_empty() && !all {
        return Err(invalid("all", "say all=true to write to every session, or label.name=value to some"));
    }
    let wishes = Wishes::of(request.headers(), &shared.config.delivery)?.without_key()?;
    let content = read(shared, request).await?;
    let (mut messages, mut full, mut gone, mut unable) = (Vec::new(), 0, 0, 0);
    for entry in shared.registry.page(&filter, None, usize::MAX).items {
        if !can_tell(&entry, &wishes) {
            unable += 1;
            continue;
        }
        match post(shared, &entry, &wishes, &content) {
            Ok(Some(claimed)) => {
                let record = claimed.record();
                messages.push(json!({ "id": record.id, "session": record.session }));
            }
            Ok(None) => {}
            Err(Refusal::Full) => full += 1,
            Err(Refusal::Ended) => gone += 1,
        }
    }
    let told = json!({ "accepted": messages.len(), "refused": { "full": full, "ended": gone, "level_unavailable": unable }, "messages": messages });
    Ok((StatusCode::ACCEPTED, Json(told)).into_response())
}

/// `GET /v1/messages/{id}`
pub(super) async fn get(State(api): State<Arc<Api>>, id: Id, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri)?.finish()?;
    let id = id.ok().and_then(|Path(id)| id.parse::<MessageId>().ok());
    let record = id.and_then(|id| api.shared.messages.find(id)).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "message-unknown", "There is no such message")
            .detail("it never was, or its end is so long ago that it is forgotten")
    })?;
    Ok(Json(MessageView::of(&record)).into_response())
}

/// Reads what is to be sent.
async fn read(shared: &Shared, request: Request) -> Result<Content, Problem> {
    let (head, body) = request.into_parts();
    let text = read_kind(head.headers.get(CONTENT_TYPE))?;
    let payload = read_body(body, shared.config.delivery.bytes_max).await?;
    if text && std::str::from_utf8(&payload).is_err() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-text", "The text is not UTF-8").detail(
            "text frames are UTF-8 (RFC 6455 section 5.6); send other bytes as application/octet-stream",
        ));
    }
    Ok(Content { text, payload })
}

async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "message-too-large", "The message is too large");
    let broken = || Problem::new(StatusCode::BAD_REQUEST, "body-incomplete", "The body can't be read");
    to_bytes(body, bytes_max).await.map_err(|error| match error.into_inner().is::<LengthLimitError>() {
        true => too_large().detail(format!("delivery.bytes_max is {bytes_max}")),
        false => broken().detail("it broke off, or its framing is wrong"),
    })
}

/// Finds the message that the same request made before, also if its session is over.
fn claim(
    shared: &Shared,
    session: Option<SessionId>,
    wishes: &Wishes,
    content: &Content,
) -> Result<Option<Claimed>, Problem> {
    let (Some(key), Some(session)) = (&wishes.key, session) else { return Ok(None) };
    match shared.messages.claim(session, key, fingerprint(shared, wishes, content)) {
        Claim::New => Ok(None),
        Claim::Known(record) => record.take().map(Some).ok_or_else(busy),
        Claim::Busy => Err(busy()),
        Claim::Differs => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The idempotency key was used for another message",
        )),
    }
}

fn accept(
    shared: &Shared,
    entry: &Entry<Mailbox>,
    wishes: &Wishes,
    content: &Content,
) -> Result<Claimed, Problem> {
    if !can_tell(entry, wishes) {
        let title = "The client can't confirm that";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "level-unavailable", title).detail(
            "handled needs a client that speaks pulsegate.v1; received is what any WebSocket stack tells by its pongs",
        ));
    }
    let posted = post(shared, entry, wishes, content).map_err(|refusal| refused(shared, entry, refusal))?;
    posted.ok_or_else(busy)
}

/// Whether a client like this one can confirm as much as is asked for.
fn can_tell(entry: &Entry<Mailbox>, wishes: &Wishes) -> bool {
    wishes.level < Level::Handled || entry.info().mode == Mode::V1
}

fn busy() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "message-in-progress",
        "The first request with this key has no answer yet",
    )
    .retry_after(RETRY_AFTER_S)
}

fn fingerprint(shared: &Shared, wishes: &Wishes, content: &Content) -> u64 {
    shared.messages.fingerprint(content.text, wishes.level, wishes.ttl, &content.payload)
}

/// Hands a message to its session; `None` if a request with the same key has just done so.
fn post(
    shared: &Shared,
    entry: &Entry<Mailbox>,
    wishes: &Wishes,
    content: &Content,
) -> Result<Option<Claimed>, Refusal> {
    let (now, limits) = (clock(), &shared.config.delivery);
    let draft = Draft {
        id: shared.registry.next_message(),
        session: entry.id(),
        level: wishes.level,
        bytes: content.payload.len(),
        key: wishes.key.clone(),
        fingerprint: wishes.key.as_ref().map_or(0, |_| fingerprint(shared, wishes, content)),
    };
    let message = Message {
        id: draft.id,
        text: content.text,
        payload: content.payload.clone(),
        level: wishes.level,
        expires_at: now + wishes.ttl,
    };
    let claimed = Record::claimed(draft, now);
    // Kept before its session can tell of it.
    if !shared.messages.keep(claimed.record()) {
        return Ok(None);
    }
    match entry.handle().send(message, Room { messages: limits.messages_max, bytes: limits.bytes_max }) {
        Ok(()) => {
            shared.metrics.delivery.accepted(1);
            Ok(Some(claimed))
        }
        Err(refusal) => {
            shared.messages.discard(claimed.record());
            Err(refusal)
        }
    }
}

fn refused(shared: &Shared, entry: &Entry<Mailbox>, refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Full => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "messages-max", "Too many messages have no end yet")
                .detail("delivery.messages_max and delivery.bytes_max bound them for each session")
                .retry_after(RETRY_AFTER_S)
        }
        Refusal::Ended => match shared.registry.find(entry.id()) {
            Lookup::Ended(tombstone) => ended(&tombstone),
            Lookup::Live(_) | Lookup::Unknown => unknown(),
        },
    }
}

/// 200 for a message that was delivered, 202 for one without an end, and a problem for one that was not.
fn answer(record: &Record) -> Result<Response, Problem> {
    let view = MessageView::of(record);
    let Status::Settled { outcome, .. } = record.status() else {
        let location = format!("/v1/messages/{}", record.id);
        return Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(view)).into_response());
    };
    let expired =
        || Problem::new(StatusCode::GATEWAY_TIMEOUT, "message-expired", "The message was not confirmed");
    let problem = match outcome {
        Outcome::Delivered(_) => return Ok(Json(view).into_response()),
        Outcome::Rejected => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "message-rejected",
            "The client's code refused the message",
        ),
        Outcome::Expired { sent: Sent::No, .. } => {
            expired().detail("its time was over, or the session, before it could leave; it never will")
        }
        Outcome::Expired { sent: Sent::Maybe, .. } => {
            expired().detail("it left, and the client is lost or confirms nothing: it may have arrived")
        }
    };
    let member = serde_json::to_value(view).expect("all keys are text");
    Err(problem.member("message", member))
}
