//! `/v1/sessions`: list, look at, and end sessions.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use pulsegate_core::{CloseFrame, EndReason, SessionId};
use pulsegate_registry::{Entry, Filter, Lookup, SessionState, Tombstone};
use serde::Serialize;

use super::Api;
use super::query::Params;
use super::view::{SessionView, TombstoneView};
use crate::problem::Problem;
use crate::relay::Mailbox;
use crate::shared::clock;

/// Sessions of a page unless the caller says otherwise.
const PAGE_DEFAULT: usize = 100;

/// Sessions of a page at most.
const PAGE_MAX: usize = 1000;

/// RFC 6455 section 7.4.1: policy violation, or anything that no other code says.
const KICK_CODE: u16 = 1008;

const KICK_REASON: &str = "kicked";

/// A control frame carries 125 bytes, two of them are the code (RFC 6455 section 5.5).
const REASON_BYTES_MAX: usize = 123;

/// The id in a path; whatever is no id names no session.
pub(super) type Id = Result<Path<String>, PathRejection>;

#[derive(Serialize)]
struct PageView<'a> {
    items: Vec<SessionView<'a>>,
    next: Option<SessionId>,
}

/// `GET /v1/sessions`
pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri)?;
    let filter = Filter { state: params.take("state", state)?, labels: params.take_all("label.")? };
    let after = params.take("cursor", str::parse::<SessionId>)?;
    let limit = params.take("limit", limit)?.unwrap_or(PAGE_DEFAULT);
    params.finish()?;
    let page = api.shared.registry.page(&filter, after, limit);
    let now = clock();
    let items = page.items.iter().map(|entry| SessionView::new(entry, now)).collect();
    Ok(Json(PageView { items, next: page.next }).into_response())
}

/// `GET /v1/sessions/{id}`
pub(super) async fn get(State(api): State<Arc<Api>>, id: Id, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri)?.finish()?;
    let entry = find(&api, id)?;
    Ok(Json(SessionView::new(&entry, clock())).into_response())
}

/// `DELETE /v1/sessions/{id}`: asks for the end; the session's own task brings it about.
pub(super) async fn kick(State(api): State<Arc<Api>>, id: Id, uri: Uri) -> Result<StatusCode, Problem> {
    let mut params = Params::of(&uri)?;
    let code = params.take("code", close_code)?.unwrap_or(KICK_CODE);
    let reason = params.take("reason", close_reason)?;
    params.finish()?;
    let entry = find(&api, id)?;
    let reason = reason.as_deref().unwrap_or(KICK_REASON);
    // When another order came first the session is ending anyway, which is what the caller wants.
    entry.handle().end(EndReason::Kicked, CloseFrame::new(code, reason));
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn session_id(id: &Id) -> Option<SessionId> {
    id.as_ref().ok()?.0.parse().ok()
}

pub(super) fn find(api: &Api, id: Id) -> Result<Arc<Entry<Mailbox>>, Problem> {
    let id = session_id(&id).ok_or_else(unknown)?;
    match api.shared.registry.find(id) {
        Lookup::Live(entry) => Ok(entry),
        Lookup::Ended(tombstone) => Err(ended(&tombstone)),
        Lookup::Unknown => Err(unknown()),
    }
}

pub(super) fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "session-unknown", "There is no such session")
        .detail("it never was, or it ended so long ago that it is forgotten")
}

pub(super) fn ended(tombstone: &Tombstone) -> Problem {
    let view = serde_json::to_value(TombstoneView::from(tombstone)).expect("all keys are text");
    let detail = match (&tombstone.ending.verdict, tombstone.ending.detail) {
        (Some(verdict), _) => format!("{}: {verdict}", tombstone.ending.reason),
        (None, Some(detail)) => format!("{}: {detail}", tombstone.ending.reason),
        (None, None) => tombstone.ending.reason.to_string(),
    };
    Problem::new(StatusCode::GONE, "session-ended", "The session ended")
        .detail(detail)
        .member("session", view)
}

pub(super) fn state(text: &str) -> Result<SessionState, &'static str> {
    SessionState::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or("live, suspect or detached is expected")
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Ok(_) | Err(_) => Err(format!("a number from 1 to {PAGE_MAX} is expected")),
    }
}

/// 1000, 1008, and what applications may use freely (RFC 6455 section 7.4.2): other codes would claim that
/// something happened which did not.
fn close_code(text: &str) -> Result<u16, &'static str> {
    match text.parse::<u16>() {
        Ok(code) if matches!(code, 1000 | 1008 | 3000..=4999) => Ok(code),
        Ok(_) | Err(_) => Err("1000, 1008 or 3000 to 4999 is expected"),
    }
}

fn close_reason(text: &str) -> Result<String, String> {
    if text.len() > REASON_BYTES_MAX {
        return Err(format!("at most {REASON_BYTES_MAX} bytes fit into a Close frame"));
    }
    Ok(text.to_owned())
}
