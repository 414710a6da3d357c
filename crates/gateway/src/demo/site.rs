//! What the page asks for, besides its WebSocket: itself, the buttons, the log, and the control API.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{Stream, stream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::app::EchoApp;
use super::assets;
use super::journal::{Entry, Journal};
use super::line::{Fault, Lines, NoLine};

/// What the requests need.
pub(super) struct Site {
    pub(super) lines: Arc<Lines>,
    pub(super) app: Arc<EchoApp>,
    pub(super) journal: Arc<Journal>,
    pub(super) facts: Facts,
    /// The gateway's control API.
    pub(super) control: String,
    /// The page's own port: requests for any other host are refused.
    pub(super) port: u16,
}

/// What does not change while the demo runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    pub(super) profile: &'static str,
    /// Longest time that a silent client stays undetected.
    pub(super) bound_seconds: f64,
    pub(super) metrics_url: String,
    pub(super) control_url: String,
}

#[derive(Deserialize)]
struct Befall {
    tab: String,
    fault: Fault,
}

#[derive(Serialize)]
struct Befallen {
    at: u64,
}

#[derive(Deserialize)]
struct Tab {
    tab: String,
}

type Forwarder = Client<HttpConnector, Body>;

/// Builds the routes.
pub(super) fn router(site: Site) -> Router {
    let site = Arc::new(site);
    let forwarder: Forwarder = Client::builder(TokioExecutor::new()).build_http();
    let forwarded = {
        let site = Arc::clone(&site);
        move |request: Request| forward(forwarder.clone(), site.control.clone(), request)
    };
    Router::new()
        .route("/demo/facts", get(facts))
        .route("/demo/faults", post(faults))
        .route("/demo/restart", post(restart))
        .route("/demo/journal", get(journal))
        .route("/control/{*rest}", get(forwarded))
        .fallback(get(assets::serve))
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guard))
        .with_state(site)
}

/// Lets in what the page itself asks for: a name that someone pointed at the loopback (DNS rebinding) and a
/// foreign page's POST are refused.
async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let hosts = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", site.port));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    if !hosts.iter().any(|known| known == host) {
        return (StatusCode::MISDIRECTED_REQUEST, "this page is for loopback names only\n").into_response();
    }
    let own = format!("http://{host}");
    if headers.get(header::ORIGIN).is_some_and(|origin| origin != own.as_str()) {
        return (StatusCode::FORBIDDEN, "only the demo's own page may ask\n").into_response();
    }
    // Some browsers don't count ws: as the same origin, so the socket is named.
    let policy = format!(
        "default-src 'self'; connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn facts(State(site): State<Arc<Site>>) -> Json<Facts> {
    Json(site.facts.clone())
}

async fn faults(State(site): State<Arc<Site>>, Json(wanted): Json<Befall>) -> Response {
    match site.lines.befall(&wanted.tab, wanted.fault) {
        Ok(at) => Json(Befallen { at }).into_response(),
        Err(error @ NoLine) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
    }
}

async fn restart(State(site): State<Arc<Site>>) -> StatusCode {
    site.app.restart();
    StatusCode::ACCEPTED
}

/// Follows the journal, from now on.
async fn journal(
    State(site): State<Arc<Site>>,
    Query(Tab { tab }): Query<Tab>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let follower = site.journal.follow();
    let after = *follower.borrow();
    let follower = Follower { site, follower, tab, after, ready: Vec::new().into_iter() };
    Sse::new(stream::unfold(follower, next_entry)).keep_alive(KeepAlive::default())
}

struct Follower {
    site: Arc<Site>,
    follower: watch::Receiver<u64>,
    tab: String,
    after: u64,
    ready: std::vec::IntoIter<Entry>,
}

async fn next_entry(mut follower: Follower) -> Option<(Result<Event, Infallible>, Follower)> {
    loop {
        if let Some(entry) = follower.ready.next() {
            let event = Event::default().json_data(entry).expect("an entry is plain data");
            return Some((Ok(event), follower));
        }
        let Follower { site, tab, after, .. } = &mut follower;
        let concerned = |entry: &Entry| entry.tab.as_ref().is_none_or(|concerned| concerned == tab);
        let mut entries = Vec::new();
        for event in site.journal.since(*after).events {
            *after = event.sequence;
            if concerned(&event.what) {
                entries.push(event.what.clone());
            }
        }
        let nothing_new = entries.is_empty();
        follower.ready = entries.into_iter();
        if nothing_new {
            follower.follower.changed().await.ok()?;
        }
    }
}

/// Passes a request on to the control API, so that the page has one origin and shows what any program
/// would get.
async fn forward(forwarder: Forwarder, control: String, request: Request) -> Response {
    let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
    let path = asked.strip_prefix("/control").unwrap_or(asked);
    let Ok(uri) = format!("http://{control}{path}").parse::<Uri>() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut onward = Request::new(Body::empty());
    *onward.method_mut() = Method::GET;
    *onward.uri_mut() = uri;
    for name in [header::ACCEPT, header::HeaderName::from_static("last-event-id")] {
        if let Some(value) = request.headers().get(&name) {
            onward.headers_mut().insert(name, value.clone());
        }
    }
    match forwarder.request(onward).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("control API: {error}\n")).into_response(),
    }
}
