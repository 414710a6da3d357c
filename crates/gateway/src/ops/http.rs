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

use crate::front::probe_upstream;
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
    ops.shared.metrics.v1.parked(ops.shared.parking.bytes());
    ([(CONTENT_TYPE, METRICS_TYPE)], ops.shared.metrics.render(&counts))
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
    } else if !probe_upstream(&ops.shared).await {
        let url = &ops.shared.config.upstream.url;
        text(StatusCode::SERVICE_UNAVAILABLE, &format!("the app takes no connection: {url}"))
    } else {
        text(StatusCode::OK, "ready")
    }
}

fn text(status: StatusCode, line: &str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, format!("{line}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    struct Kit {
        shared: Arc<Shared>,
        address: SocketAddr,
        bound: CancellationToken,
        finish: CancellationToken,
        task: JoinHandle<()>,
    }

    async fn kit(app: SocketAddr) -> Kit {
        let mut config = Config::default();
        config.upstream.url = format!("http://{app}");
        let shared = Arc::new(Shared::new(config));
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let (bound, finish) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(serve(Arc::clone(&shared), listener, bound.clone(), finish.clone()));
        Kit { shared, address, bound, finish, task }
    }

    async fn listen() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    impl Kit {
        async fn ask(&self, method: &str, path: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }

        async fn status(&self, path: &str) -> u16 {
            self.ask("GET", path).await.split(' ').nth(1).unwrap().parse().unwrap()
        }
    }

    #[tokio::test]
    async fn health_follows_the_life_of_the_gateway() {
        let app = listen().await;
        let kit = kit(app.local_addr().unwrap()).await;
        let all =
            async || (kit.status("/livez").await, kit.status("/startupz").await, kit.status("/readyz").await);
        assert_eq!(all().await, (200, 503, 503));
        kit.bound.cancel();
        assert_eq!(all().await, (200, 200, 200));
        kit.shared.stop.cancel();
        assert_eq!(all().await, (200, 200, 503));
        assert!(kit.ask("GET", "/readyz").await.ends_with("\r\n\r\ndraining\n"));
        kit.finish.cancel();
        kit.task.await.unwrap();
    }

    #[tokio::test]
    async fn only_readiness_looks_at_the_app() {
        let gone = listen().await.local_addr().unwrap();
        let kit = kit(gone).await;
        kit.bound.cancel();
        assert_eq!((kit.status("/livez").await, kit.status("/startupz").await), (200, 200));
        let answer = kit.ask("GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(&gone.to_string()), "{answer}");
    }

    #[tokio::test]
    async fn metrics_are_text_that_prometheus_reads() {
        let kit = kit(listen().await.local_addr().unwrap()).await;
        let answer = kit.ask("GET", "/metrics").await;
        assert!(
            answer.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\npulsegate_sessions{state=\"live\"} 0\n"), "{answer}");
        let head = kit.ask("HEAD", "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(kit.status("/").await, 404);
        let refused = kit.ask("POST", "/metrics").await;
        assert!(
            refused.starts_with("HTTP/1.1 405") && refused.contains("\r\nallow: GET,HEAD\r\n"),
            "{refused}"
        );
    }
}
