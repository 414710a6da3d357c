//! The control API: what runs, why sessions ended, and the event feed, over HTTP.
//!
//! `guard` decides who may ask, `sessions`, `stats` and `stream` answer, `view` and `events` hold the
//! shapes of answers, and `docs/openapi.json` promises them. It serves until `finish`, which comes after the
//! drain, so that the end of every session can still be seen.

mod events;
mod guard;
mod listener;
mod message_headers;
mod message_view;
mod messages;
mod query;
mod secret;
mod sessions;
mod stats;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL,
    CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use listener::{ControlListener, socket_path};
pub(crate) use secret::Secret;

use crate::config::Control;
use crate::http_serve::http_serve;
use crate::problem::Problem;
use crate::shared::Shared;
use guard::Guard;

/// The promise that all of this keeps.
const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// Connections at once, not counted those for which there are places of their own: event feeds, and waits for messages.
const CONNECTIONS_MAX: usize = 128;

/// How long a browser may remember that it may ask, in seconds.
const PREFLIGHT_MAX_AGE_S: u32 = 600;

/// What a page may say in its requests.
const ALLOWED_HEADERS: &str =
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, Pulsegate-Level, Pulsegate-Ttl";

/// What a page may read of an answer, besides what the Fetch standard lists as safe.
const EXPOSED_HEADERS: &str = "Location, Preference-Applied, Retry-After";

/// Why the control API does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Everyone who reaches the address could end sessions.
    #[error("the control API on {0} needs a token (control.token_file), since it is not a loopback address")]
    TokenMissing(SocketAddr),
}

/// Serves the control API on `listener` until `finish` is cancelled; then event feeds end, and answers under
/// way have a moment to.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: ControlListener,
    token: Option<Secret>,
    finish: CancellationToken,
) {
    let limits = shared.config.limits.clone();
    let Control { feeds_max, waits_max, .. } = shared.config.control;
    let api = Arc::new(Api {
        guard: Guard::new(&shared.config.control, token),
        feeds: Arc::new(Semaphore::new(feeds_max)),
        waits: Semaphore::new(waits_max),
        finish: finish.clone(),
        shared,
    });
    let ControlListener { listener, place } = listener;
    let connections_max = CONNECTIONS_MAX.saturating_add(feeds_max).saturating_add(waits_max);
    http_serve(listener, router(api), &limits, connections_max, finish).await;
    drop(place);
}

/// What all answers are made from.
struct Api {
    shared: Arc<Shared>,
    guard: Guard,
    /// Places for event feeds.
    feeds: Arc<Semaphore>,
    /// Places for those who wait for the end of a message.
    waits: Semaphore,
    finish: CancellationToken,
}

/// Every path and what answers there.
fn routes() -> [(&'static str, MethodRouter<Arc<Api>>); 9] {
    [
        ("/v1/sessions", get(sessions::list)),
        ("/v1/sessions/{id}", get(sessions::get).delete(sessions::kick)),
        ("/v1/sessions/{id}/messages", post(messages::send)),
        ("/v1/messages", post(messages::send_to_many)),
        ("/v1/messages/{id}", get(messages::get)),
        ("/v1/events", get(stream::events)),
        ("/v1/stats", get(stats::stats)),
        ("/v1/config", get(config)),
        ("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI))),
    ]
}

fn router(api: Arc<Api>) -> Router {
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here")
                .detail("GET /openapi.json lists what there is")
        })
        .method_not_allowed_fallback(async |method: Method| {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This method is not allowed here",
            )
            .detail(format!("{method} does not work here; see the Allow header"))
        })
        .layer(from_fn_with_state(Arc::clone(&api), guarded))
        .with_state(api)
}

/// Lets a request through to its answer, or refuses it, and adds what every answer carries.
async fn guarded(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let (mut response, origin) = match api.guard.check_source(uri, headers) {
        Err(problem) => (IntoResponse::into_response(problem), None),
        Ok(Some(origin)) if is_preflight(request.method(), headers) => (preflight(), Some(origin)),
        Ok(origin) => match api.guard.check_token(headers) {
            Ok(()) => (next.run(request).await, origin),
            Err(problem) => (IntoResponse::into_response(problem), origin),
        },
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A browser asks whether it may ask; it sends no token with that (Fetch standard, CORS-preflight fetch).
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE")),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS)),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_MAX_AGE_S)),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// `GET /v1/config`: every key with its value. The token is not among them, only the path of its file.
async fn config(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    query::Params::of(&uri)?.finish()?;
    Ok(Json(api.shared.config.to_json()).into_response())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // The inherent method of the same name.
        Problem::into_response(self).map(axum::body::Body::from)
    }
}
