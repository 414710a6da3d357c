//! The handshake of clients that speak `pulsegate.v1`: what they offer, what the app gets to see, how they come back.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::OnUpgrade;
use pulsegate_core::SessionId;
use pulsegate_core::v1::{Offer, OfferedResume, Secret, Token};
use pulsegate_registry::{Hello, Lookup, Mode, Refusal, SessionInfo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::accept_for;
use super::forwarded;
use super::handshake::{only, tokens};
use super::place::Place;
use super::rejection::Rejection;
use super::service::AnswerBody;
use super::upgrade::{into_socket, origin};
use crate::relay::{Arrival, new_secret, refuse};
use crate::shared::Shared;

/// What a client has offered, apart from the headers that the app gets.
#[derive(Debug)]
pub(super) struct Offered {
    /// Its entries of `Sec-WebSocket-Protocol`.
    entries: Vec<Box<str>>,
}

impl Offered {
    /// Takes the entries that are ours out of a request; `None` if there are none that offer the protocol. If there are,
    /// the extensions go, too: their state would die with the connection.
    pub(super) fn take(headers: &mut HeaderMap) -> Option<Offered> {
        let entries: Vec<Box<str>> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).map(Into::into).collect();
        let offered = Offered { entries };
        // A token is for nobody's eyes but ours, also where there is nothing else in the offer for us.
        offered.entries.iter().any(|entry| Offer::is_ours(entry)).then_some(())?;
        let rest: Vec<&str> =
            offered.entries.iter().map(|entry| &**entry).filter(|entry| !Offer::is_ours(entry)).collect();
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let Ok(rest) = HeaderValue::from_str(&rest.join(", "))
            && !rest.is_empty()
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
        }
        offered.parse()?;
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        Some(offered)
    }

    fn parse(&self) -> Option<Offer<'_>> {
        Offer::parse(self.entries.iter().map(|entry| &**entry))
    }

    /// Returns what the client wants to come back to, if it does.
    pub(super) fn resume(&self) -> Option<Wish> {
        let offer = self.parse()?;
        let (entry, of_app) = offer.first();
        Some(Wish { resume: offer.resume?, entry: entry.into(), of_app: of_app.map(Into::into) })
    }

    /// Returns the subprotocol to answer with if the app chose `of_app`; `None` if the client did not offer the two
    /// together.
    pub(super) fn agree(&self, of_app: Option<&str>) -> Option<&str> {
        self.parse()?.answer(of_app)
    }
}

/// What a client wants that comes back.
pub(super) struct Wish {
    resume: OfferedResume,
    /// What it is answered with.
    entry: Box<str>,
    of_app: Option<Box<str>>,
}

/// Puts the subprotocol into the app's 101.
pub(super) fn set_subprotocol(headers: &mut HeaderMap, subprotocol: &str) {
    if let Ok(value) = HeaderValue::from_str(subprotocol) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// A client that wants its session back.
pub(super) struct Returning {
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    pub(super) on_client: OnUpgrade,
    pub(super) head: request::Parts,
    pub(super) wish: Wish,
}

impl Returning {
    /// Answers 101 whatever becomes of it: a page never gets to see another answer. The rest is said on the connection.
    pub(super) fn welcome(self, shared: &Arc<Shared>) -> Response<AnswerBody> {
        let key = only(&self.head.headers, &SEC_WEBSOCKET_KEY).map(|key| accept_for(key.as_bytes()));
        let mut answer = Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(accept) = key.and_then(|key| HeaderValue::from_str(&key).ok()) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        set_subprotocol(headers, &self.wish.entry);
        self.hand_over(Arc::clone(shared));
        answer
    }

    /// Gives the connection to the session, once hyper has written the 101 and given the socket back.
    fn hand_over(self, shared: Arc<Shared>) {
        let tracker = shared.connections.clone();
        tracker.spawn(async move {
            let Returning { peer, place, on_client, head, wish } = self;
            let given_back = timeout(shared.config.upstream.handshake_timeout, on_client).await;
            let Some((stream, early)) = given_back.ok().and_then(Result::ok).and_then(into_socket) else {
                shared.metrics.handshake_rejected(Rejection::ClientGone);
                return;
            };
            let OfferedResume::Well { token: Token { session, secret }, received } = wish.resume else {
                return refuse(&shared, stream, place, Refusal::UNKNOWN);
            };
            let entry = match shared.registry.find(session) {
                Lookup::Live(entry) if entry.info().mode == Mode::V1 => entry,
                Lookup::Live(_) | Lookup::Ended(_) | Lookup::Unknown => {
                    let refusal = last_word(&shared, session, &secret);
                    return refuse(&shared, stream, place, refusal);
                }
            };
            let client = forwarded::client_address(&head.headers, peer, &shared.config.forwarded.trusted);
            let hello = Hello {
                resume: Some((secret, received)),
                is_same_origin: is_same(entry.info(), &head.headers, wish.of_app.as_deref()),
                next: new_secret(),
                behind_proxy: client != peer.ip().to_canonical(),
                seed: fastrand::u64(..),
            };
            let Ok(stream) = stream.into_std() else { return };
            let arrival = Arrival { hello, peer, stream, early, place };
            if let Err(late) = entry.handle().arrive(arrival)
                && let Ok(stream) = TcpStream::from_std(late.stream)
            {
                refuse(&shared, stream, late.place, last_word(&shared, session, &secret));
            }
        });
    }
}

/// What a client is told whose session is not there.
fn last_word(shared: &Shared, session: SessionId, secret: &Secret) -> Refusal {
    match shared.registry.find(session) {
        Lookup::Ended(tombstone) => {
            tombstone.last.as_ref().map_or(Refusal::UNKNOWN, |last| last.refusal(secret))
        }
        Lookup::Live(_) | Lookup::Unknown => Refusal::UNKNOWN,
    }
}

/// A token is good for the origin and the subprotocol that it was given for.
fn is_same(info: &SessionInfo, headers: &HeaderMap, of_app: Option<&str>) -> bool {
    info.origin == origin(headers) && info.subprotocol.as_deref() == of_app
}
