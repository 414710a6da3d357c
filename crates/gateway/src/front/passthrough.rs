//! Plain HTTP: everything that is no WebSocket handshake goes to the app as it came, and streams both ways.

use std::error::Error as _;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::net::TcpStream;
use tracing::debug;

use super::body::{RequestBody, ResponseBody, Stalled, Upload};
use super::rejection::Rejection;
use super::service::{AnswerBody, Front};
use super::upstream::{self, DialFailure, Target, dial};
use super::{forwarded, handshake, headers, trace};
use crate::http_serve::buffer_bytes_max;
use crate::shared::Shared;

/// How long an idle connection to the app is kept: shorter than the 5 s after which node closes one, since
/// a request sent into a closing connection is lost.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// The pooling client.
pub(super) type AppClient = legacy::Client<Connector, RequestBody>;

/// Builds the client; its pool is bounded by `upstream.pool_idle_max`, its use by the clients' connections.
pub(super) fn client(shared: &Arc<Shared>, target: &Arc<Target>) -> AppClient {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(shared.config.upstream.pool_idle_max)
        .http1_preserve_header_case(true)
        .http1_max_headers(shared.config.limits.headers_max)
        .http1_max_buf_size(buffer_bytes_max(&shared.config.limits))
        .build(Connector { shared: Arc::clone(shared), target: Arc::clone(target) })
}

/// Passes one request to the app and returns the app's answer, or 502 or 504.
///
/// # Cancel safety
/// Dropping the future cuts the request at the app as well.
pub(super) async fn pass(
    front: &Front,
    peer: SocketAddr,
    mut head: request::Parts,
    body: Incoming,
) -> Response<AnswerBody> {
    let upload = Upload::new(holds_body_back(&mut head, &body));
    let mut request = app_request(front, peer, head, RequestBody::new(body, &upload));
    let asked = Arc::clone(&upload);
    hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            asked.open();
        }
    });
    let answered = tokio::select! {
        answered = ask(&front.app, request) => answered,
        stalled = upload.stalled(front.shared.config.upstream.response_timeout) => {
            let reason = match stalled {
                Stalled::Client => Rejection::BodyTimeout,
                Stalled::App => Rejection::AppTimeout,
            };
            return front.refuse(reason, None);
        }
    };
    match answered {
        Ok(answer) if is_passable(&answer) => client_answer(answer, Some(upload)),
        Ok(_) => front.refuse(Rejection::AppInvalid, None),
        Err(error) => {
            debug!(%error, "the app did not answer");
            front.refuse(failure_of(&error, &upload), None)
        }
    }
}

/// Turns an app's answer into the one that the client gets.
pub(super) fn client_answer(answer: Response<Incoming>, upload: Option<Arc<Upload>>) -> Response<AnswerBody> {
    let (mut head, body) = answer.into_parts();
    headers::strip_response(&mut head.headers, head.status);
    // hyper writes the version that the client speaks.
    head.version = Version::HTTP_11;
    if upload.as_ref().is_some_and(|upload| upload.refuse()) {
        // Whether the client sends its body now or not can't be told from the next request.
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Response::from_parts(head, ResponseBody::new(body, upload).boxed_unsync())
}

/// A body is held back when the client waits with it; an expectation that nobody has is removed.
fn holds_body_back(head: &mut request::Parts, body: &Incoming) -> bool {
    let expects =
        head.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    // RFC 9110 section 10.1.1 has it ignored for HTTP/1.0.
    let holds = expects && !body.is_end_stream() && head.version == Version::HTTP_11;
    if expects && !holds {
        head.headers.remove(EXPECT);
    }
    holds
}

fn app_request(
    front: &Front,
    peer: SocketAddr,
    mut head: request::Parts,
    body: RequestBody,
) -> Request<RequestBody> {
    to_app(&mut head.headers, peer, &front.shared.config.forwarded.trusted);
    head.uri = front.target.uri_of(head.uri.path_and_query().cloned());
    head.version = Version::HTTP_11;
    let mut request = Request::from_parts(head, body);
    // Another protocol than WebSocket was not asked for at the app, so it can't be switched to.
    drop(hyper::upgrade::on(&mut request));
    request
}

/// Turns a client's headers into those that the app gets.
pub(crate) fn to_app(headers: &mut HeaderMap, peer: SocketAddr, trusted: &[IpNet]) {
    headers::strip_request(headers);
    forwarded::set(headers, peer, trusted);
    trace::set_request_id(headers);
    trace::set_traceparent(headers);
}

/// Sends a request, and sends it once more when the app hung up without an answer and asking twice is as
/// good as asking once (RFC 9110 section 9.2.2): as a rule the app had just closed an idle connection.
async fn ask(app: &AppClient, request: Request<RequestBody>) -> Result<Response<Incoming>, legacy::Error> {
    let again = is_repeatable(&request).then(|| repeated(&request));
    match (app.request(request).await, again) {
        (Err(error), Some(again)) if is_hang_up(&error) => app.request(again).await,
        (answered, _) => answered,
    }
}

fn is_repeatable(request: &Request<RequestBody>) -> bool {
    request.method().is_safe() && request.body().is_end_stream()
}

fn repeated(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut again = Request::new(RequestBody::empty());
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    again.extensions_mut().clone_from(request.extensions());
    again
}

fn is_hang_up(error: &legacy::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    !error.is_connect() && source.is_some_and(|error| upstream::http_failure_of(error) == DialFailure::Reset)
}

/// hyper undoes chunked; a coding under it would reach the client without its name. 101 was not asked for.
fn is_passable(answer: &Response<Incoming>) -> bool {
    let plain =
        !answer.headers().contains_key(TRANSFER_ENCODING) || handshake::is_chunked_only(answer.headers());
    plain && answer.status() != StatusCode::SWITCHING_PROTOCOLS
}

fn failure_of(error: &legacy::Error, upload: &Upload) -> Rejection {
    if upload.is_broken() {
        return Rejection::MalformedBody;
    }
    if !error.is_connect() {
        return Rejection::AppInvalid;
    }
    let dialled = error.source().and_then(|source| source.downcast_ref::<DialFailure>());
    if dialled == Some(&DialFailure::Timeout) { Rejection::AppTimeout } else { Rejection::AppUnreachable }
}

/// Dials the app for the pool.
#[derive(Clone)]
pub(super) struct Connector {
    shared: Arc<Shared>,
    target: Arc<Target>,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = DialFailure;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, DialFailure>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), DialFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { dial(&connector.shared, &connector.target).await.map(TokioIo::new) })
    }
}
