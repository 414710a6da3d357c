//! The ops port: metrics and health.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http_serve::{Listener, http_serve};
use crate::shared::Shared;

/// Connections to the ops port at once.
const CONNECTIONS_MAX: usize = 128;

/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Text = ([(HeaderName, &'static str); 1], String);

/// Serves `/metrics`, `/livez`, `/readyz` and `/startupz` until `finish` is cancelled.
///
/// `bound` is cancelled by the caller once all listeners are bound. Until `finish` health is answered, also
/// while the gateway drains: that is when it matters that `/readyz` says no.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    bound: CancellationToken,
    finish: CancellationToken,
) {
    let limits = shared.config.limits.clone();
    let router = router(Ops { shared, bound });
    http_serve(Listener::Tcp(listener), router, &limits, CONNECTIONS_MAX, finish).await;
}

#[derive(Clone)]
struct Ops {
    shared: Arc<Shared>,
    bound: CancellationToken,
}

fn router(ops: Ops) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || text(StatusCode::OK, "alive")))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .fallback(async || {
            text(StatusCode::NOT_FOUND, "not here: /metrics, /livez, /readyz and /startupz are")
        })
        .method_not_allowed_fallback(async || text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"))
        .with_state(ops)
}

async fn metrics(State(ops): State<Ops>) -> Text {
    let counts = ops.shared.registry.counts();
    ([(CONTENT_TYPE, METRICS_TYPE)], ops.shared.metrics.render(counts.live, counts.suspect))
}

/// Says only that the listeners are bound: a start-up probe that asks the app deadlocks a Kubernetes pod
/// whose app waits for its sidecar.
async fn started(State(ops): State<Ops>) -> Response {
    if ops.bound.is_cancelled() {
        text(StatusCode::OK, "started")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "starting: not all listeners are bound")
    }
}

async fn ready(State(ops): State<Ops>) -> Response {
    if !ops.bound.is_cancelled() {
        text(StatusCode::SERVICE_UNAVAILABLE, "starting: not all listeners are bound")
    } else if ops.shared.stop.is_cancelled() {
        text(StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if !app_answers(&ops.shared).await {
        let url = &ops.shared.config.upstream.url;
        text(StatusCode::SERVICE_UNAVAILABLE, &format!("the app takes no connection: {url}"))
    } else {
        text(StatusCode::OK, "ready")
    }
}

/// Until the front lands: one TCP connection per question.
async fn app_answers(shared: &Shared) -> bool {
    let Some(authority) = shared.config.upstream.url.strip_prefix("http://") else { return false };
    let connect = tokio::net::TcpStream::connect(authority.trim_end_matches('/').to_owned());
    let up = matches!(tokio::time::timeout(shared.config.upstream.connect_timeout, connect).await, Ok(Ok(_)));
    shared.metrics.upstream_up(up);
    up
}

fn text(status: StatusCode, line: &str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, format!("{line}\n")).into_response()
}
