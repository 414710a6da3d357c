//! From an upgrade request to a session: admit, dial, ask the app, check its 101, hand both sockets over.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, ORIGIN, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, request, response};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use pulsegate_registry::{Mode, Permit, Refused, SessionInfo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::answer::{self, Agreement, AnswerError};
use super::handshake::only;
use super::headers::{has_prefix, remove_where};
use super::labels::clean;
use super::passthrough::client_answer;
use super::place::Place;
use super::redial::Redial;
use super::rejection::Rejection;
use super::service::{AnswerBody, Front};
use super::upstream::{self, DialFailure};
use super::v1::{self, Offered, Returning, Wish};
use super::{forwarded, handshake, headers, sockets, trace};
use crate::relay::Established;
use crate::shared::Shared;

const PULSEGATE_SESSION: HeaderName = HeaderName::from_static("pulsegate-session");
const PULSEGATE_MODE: HeaderName = HeaderName::from_static("pulsegate-mode");

/// Longest path and origin that are kept of a session: tombstones and events keep them long after its end,
/// and a client may send as much as `limits.header_bytes_max` allows.
const PATH_BYTES_MAX: usize = 1024;
const ORIGIN_BYTES_MAX: usize = 256;

/// Answers one upgrade request; on success the session begins as soon as the client has its 101.
///
/// # Cancel safety
/// Dropping the future, which hyper does when the client leaves, ends the dial and frees the place.
pub(super) async fn upgrade(
    front: Arc<Front>,
    place: Place,
    peer: SocketAddr,
    mut head: request::Parts,
) -> Response<AnswerBody> {
    let attempt = Attempt::new(&front.shared);
    let speaks_v1 = front.shared.config.v1.offer.is_on();
    let offered = if speaks_v1 { Offered::take(&mut head.headers) } else { None };
    let result = if let Some(wish) = offered.as_ref().and_then(Offered::resume) {
        come_back(&front, place, peer, head, wish).map_err(|reason| (reason, None))
    } else {
        match admit(&front, peer, &head) {
            Ok(admitted) => {
                let on_client = take_upgrade(&mut head);
                let request = Asking { peer, admitted, place, on_client, offered, head };
                request.ask(&front, attempt.started).await
            }
            Err(reason) => Err((reason, None)),
        }
    };
    attempt.settled();
    result.unwrap_or_else(|(reason, detail)| {
        debug!(%peer, reason = reason.as_str(), "handshake refused");
        front.refuse(reason, detail)
    })
}

/// Answers a client that wants its session back.
fn come_back(
    front: &Front,
    place: Place,
    peer: SocketAddr,
    mut head: request::Parts,
    wish: Wish,
) -> Result<Response<AnswerBody>, Rejection> {
    check(front, &head)?;
    let on_client = take_upgrade(&mut head);
    Ok(Returning { peer, place, on_client, head, wish }.welcome(&front.shared))
}

/// A refusal with what there is to say about it.
type Refusal = (Rejection, Option<String>);

/// An upgrade request that was admitted.
struct Asking {
    peer: SocketAddr,
    admitted: Admitted,
    place: Place,
    on_client: OnUpgrade,
    /// Set if the client speaks `pulsegate.v1`.
    offered: Option<Offered>,
    head: request::Parts,
}

/// What came of asking the app.
struct OfApp {
    socket: (TcpStream, Bytes),
    agreement: Agreement,
    /// Set if the session waits for an app that restarts.
    redial: Option<Arc<Redial>>,
    request_id: Box<str>,
}

impl Asking {
    async fn ask(self, front: &Arc<Front>, started: Instant) -> Result<Response<AnswerBody>, Refusal> {
        let shared = &front.shared;
        let id = self.admitted.permit.id().to_string();
        let trusted = &shared.config.forwarded.trusted;
        let mode = if self.offered.is_some() { Mode::V1 } else { Mode::Plain };
        let (request, request_id) = app_request(&self.head, self.peer, trusted, &id, mode);
        let redial = (mode == Mode::V1 && !shared.config.upstream.hold.is_zero())
            .then(|| Redial::new(&front.target, &request));
        let stream = upstream::dial(shared, &front.target).await.map_err(dial_refusal)?;
        let mut answer = upstream::exchange(shared, stream, request).await.map_err(dial_refusal)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            shared.metrics.handshake_rejected(Rejection::AppRefused);
            return Ok(client_answer(answer, None));
        }
        let agreement = answer::check(&self.head.headers, answer.headers()).map_err(|error| {
            shared.metrics.upstream_connect_failed(DialFailure::InvalidResponse);
            answer_refusal(error)
        })?;
        let upgraded = hyper::upgrade::on(&mut answer).await;
        let app = upgraded.ok().and_then(into_socket).ok_or_else(|| dial_refusal(DialFailure::Reset))?;
        // Only now, since the app wants this client: for the taking of a place alone nobody has to leave.
        if self.admitted.is_beyond {
            let longest = shared.parking.take_longest().ok_or((Rejection::SessionsMax, None))?;
            shared.evict(longest);
        }
        let mut switching = switching(answer.into_parts().0);
        // A client that did not offer the two together gets the app's alone, and no more than anybody else.
        let agreed =
            self.offered.as_ref().and_then(|offered| offered.agree(agreement.subprotocol.as_deref()));
        let mode = if agreed.is_some() { Mode::V1 } else { Mode::Plain };
        if let Some(entry) = agreed {
            v1::set_subprotocol(switching.headers_mut(), entry);
        }
        let redial = redial
            .filter(|_| mode == Mode::V1)
            .map(|redial| Arc::new(redial.agreed(agreement.subprotocol.clone())));
        let app = OfApp { socket: app, agreement, redial, request_id };
        self.hand_over(front, app, mode, started);
        Ok(switching)
    }

    /// Begins the session once hyper has written the 101 and given the client's socket back.
    fn hand_over(self, front: &Arc<Front>, app: OfApp, mode: Mode, started: Instant) {
        let OfApp { socket: (app, app_early), agreement, redial, request_id } = app;
        let info = SessionInfo {
            peer: self.peer,
            client: self.admitted.client,
            path: clean(self.head.uri.path(), PATH_BYTES_MAX),
            origin: origin(&self.head.headers),
            subprotocol: agreement.subprotocol,
            labels: front.labels.read(&self.head),
            request_id,
            mode,
            receipts: agreement.receipts,
        };
        let (shared, relay) = (Arc::clone(&front.shared), Arc::clone(&front.relay));
        let (permit, place, on_client) = (self.admitted.permit, self.place, self.on_client);
        // A short-lived task of its own: hyper's connection must end before the session begins.
        front.shared.connections.spawn(async move {
            let given_back = timeout(shared.config.upstream.handshake_timeout, on_client).await;
            let Some((client, client_early)) = given_back.ok().and_then(Result::ok).and_then(into_socket)
            else {
                shared.metrics.handshake_rejected(Rejection::ClientGone);
                return;
            };
            shared.metrics.handshake_done(started.elapsed());
            let reserved_bits = agreement.reserved_bits;
            let established = Established {
                permit,
                place,
                info,
                client,
                client_early,
                app,
                app_early,
                redial,
                reserved_bits,
            };
            relay(&shared, established);
        });
    }
}

fn check(front: &Front, head: &request::Parts) -> Result<(), Rejection> {
    handshake::check_upgrade(head, &front.shared.config.origin.allow)?;
    if front.shared.stop.is_cancelled() { Err(Rejection::Draining) } else { Ok(()) }
}

/// A client that has a place among the sessions.
#[derive(Debug)]
pub(super) struct Admitted {
    client: IpAddr,
    permit: Permit,
    /// All were taken: a session has to end for it that waits for its own client.
    is_beyond: bool,
}

/// Checks what needs no app, and takes a place among the sessions.
pub(super) fn admit(front: &Front, peer: SocketAddr, head: &request::Parts) -> Result<Admitted, Rejection> {
    let config = &front.shared.config;
    check(front, head)?;
    let client = forwarded::client_address(&head.headers, peer, &config.forwarded.trusted);
    let Shared { registry, parking, .. } = &*front.shared;
    let (permit, is_beyond) = match registry.admit(client) {
        Err(Refused::SessionsMax) if !parking.is_empty() => (registry.admit_beyond(client), true),
        admitted => (admitted, false),
    };
    let permit = permit.map_err(|refused| match refused {
        Refused::SessionsMax => Rejection::SessionsMax,
        Refused::AddressMax => Rejection::AddressMax,
    })?;
    Ok(Admitted { client, permit, is_beyond })
}

/// Builds the request to the app: the client's own but for what `headers` and `forwarded` change; and its id.
pub(crate) fn app_request(
    client: &request::Parts,
    peer: SocketAddr,
    trusted: &[IpNet],
    session: &str,
    mode: Mode,
) -> (Request<Empty<Bytes>>, Box<str>) {
    let mut request = Request::new(Empty::new());
    let path = client.uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    // The case of the header names, which hyper keeps where nobody can see it.
    *request.extensions_mut() = client.extensions.clone();
    let headers = request.headers_mut();
    headers.clone_from(&client.headers);
    headers::strip_request(headers);
    // A Content-Length of 0 may have passed the checks; a handshake has none.
    headers.remove(CONTENT_LENGTH);
    forwarded::set(headers, peer, trusted);
    let request_id = trace::set_request_id(headers);
    trace::set_traceparent(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(PULSEGATE_SESSION, HeaderValue::from_str(session).expect("an id is ASCII"));
    headers.insert(PULSEGATE_MODE, HeaderValue::from_static(mode.as_str()));
    (request, request_id)
}

/// What is kept of a page's origin.
pub(super) fn origin(headers: &HeaderMap) -> Option<Box<str>> {
    let origin = only(headers, &ORIGIN)?.to_str().ok()?;
    Some(clean(origin, ORIGIN_BYTES_MAX))
}

/// Takes out of a request what gives its socket back after the 101.
fn take_upgrade(head: &mut request::Parts) -> OnUpgrade {
    let mut request = Request::new(());
    std::mem::swap(request.extensions_mut(), &mut head.extensions);
    let on_client = hyper::upgrade::on(&mut request);
    std::mem::swap(request.extensions_mut(), &mut head.extensions);
    on_client
}

/// Takes a socket back from hyper, with the bytes that came behind the head.
pub(super) fn into_socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    // A copy: hyper's buffer would stay pinned as long as the session holds a byte of it.
    let early = Bytes::copy_from_slice(&parts.read_buf);
    let stream = parts.io.into_inner();
    sockets::unwatch(&stream);
    Some((stream, early))
}

/// The app's 101 as the client gets it: unchanged, but a 101 has no body (RFC 9110 section 8.6).
fn switching(mut head: response::Parts) -> Response<AnswerBody> {
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(TRANSFER_ENCODING);
    // What the app says there it says to us.
    remove_where(&mut head.headers, |name| has_prefix(name, "pulsegate-"));
    Response::from_parts(head, Empty::new().map_err(|never| match never {}).boxed_unsync())
}

fn dial_refusal(failure: DialFailure) -> Refusal {
    let reason = match failure {
        DialFailure::Refused | DialFailure::Unreachable | DialFailure::Reset | DialFailure::Other => {
            Rejection::AppUnreachable
        }
        // Not the app's fault.
        DialFailure::Shortage => Rejection::ConnectionsMax,
        DialFailure::Timeout | DialFailure::HandshakeTimeout => Rejection::AppTimeout,
        DialFailure::InvalidResponse => Rejection::AppInvalid,
    };
    (reason, Some(failure.to_string()))
}

fn answer_refusal(error: AnswerError) -> Refusal {
    (Rejection::AppInvalid, Some(format!("the app answered 101, but {error}")))
}

/// Counts a client that left before its handshake was settled.
struct Attempt {
    shared: Arc<Shared>,
    started: Instant,
    settled: bool,
}

impl Attempt {
    fn new(shared: &Arc<Shared>) -> Attempt {
        Attempt { shared: Arc::clone(shared), started: Instant::now(), settled: false }
    }

    fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.settled {
            self.shared.metrics.handshake_rejected(Rejection::ClientGone);
        }
    }
}
